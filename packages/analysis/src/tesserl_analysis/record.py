"""The record of a run: ``metrics.csv``, in long form, with one row per step and name."""

import csv
import io
from pathlib import Path

HEADER = ("step", "name", "value", "time")

Row = tuple[int, str, float, float]


def read_metrics(path: Path) -> list[Row]:
    """Return the rows ``(step, name, value, time)`` of a ``metrics.csv``, without an incomplete last line."""
    text = path.read_text(encoding="utf-8")
    rows = csv.reader(io.StringIO(text[: text.rfind("\n") + 1]))
    next(rows, None)
    return [(int(step), name, float(value), float(seconds)) for step, name, value, seconds in rows]


def series(rows: list[Row], name: str) -> tuple[list[int], list[float]]:
    """Return the steps and values of one metric."""
    return [row[0] for row in rows if row[1] == name], [row[2] for row in rows if row[1] == name]
