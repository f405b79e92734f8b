"""Bounds of whole numbers, for the schema and for the options of commands; nothing is imported here."""

MOST_STEPS = 10**15
"""A century at 300,000 a second; a double, which metrics and schedules are made of, holds every step up to it."""

MOST_SEED = 2**63 - 1
"""torch, NumPy and safetensors hold a seed as 64 bits with a sign."""

MOST_TASK_SEED = 2**31 - 1
"""Handed to tasks as it is, and some keep 32 bits."""

MOST_AT_ONCE = 1_000_000
"""Things that exist at once, or are done one after the other within one step of a loop."""

MOST_WIDTH = 65_536
"""Features, tokens, channels or quantiles."""

MOST_PIXELS = 4_096
"""Height and width of an image."""

MOST_THREADS = 1_024
"""CPU threads, or processes."""
