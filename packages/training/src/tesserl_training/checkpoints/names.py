"""Names of checkpoint directories, and their order."""

import re
from pathlib import Path

NAME = re.compile(r"step_(\d{9}|[1-9]\d{9,17})")
"""Least number of digits. From 10^9 steps on names are longer, so they are sorted by number, not as text."""


def checkpoint_name(step: int) -> str:
    """Return the directory name of the checkpoint of a step."""
    return f"step_{step:09d}"


def step_of(name: str) -> int | None:
    """Return the step in the name of a checkpoint; None for any other name."""
    match = NAME.fullmatch(name)
    return None if match is None else int(match[1])


def checkpoint_paths(directory: Path) -> list[Path]:
    """Return the checkpoints in a directory in the order of their steps; ignore other names."""
    found = [(step, path) for path in directory.glob("step_*") if (step := step_of(path.name)) is not None]
    return [path for _, path in sorted(found)]
