"""Bounds of whole numbers, for the schema and the options of commands; this module imports nothing."""

MOST_STEPS = 10**15
"""A century at 300,000 steps per second; metrics and schedules use doubles, which are exact up to here."""

MOST_SEED = 2**63 - 1
"""torch, NumPy and safetensors store a seed in 64 bits with a sign."""

MOST_TASK_SEED = 2**31 - 1
"""Largest seed of a task; some tasks store it in 32 bits with a sign."""

MOST_AT_ONCE = 1_000_000
"""Objects that exist at once, or operations within one step of a loop."""

MOST_WIDTH = 65_536
"""Features, tokens, channels or quantiles."""

MOST_PIXELS = 4_096
"""Height and width of an image."""

MOST_THREADS = 1_024
"""CPU threads, or processes."""
