"""Recorded runs to compare with: runs of this project, and returns that others published."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tesserl_analysis.comparison import ComparisonArgumentError, ComparisonError, Run, unknown
from tesserl_analysis.tables import Table

RECORDED = Path(__file__).parent / "recorded"
RUNS, CURVES, PUBLISHED = "runs.csv", "curves.csv", "published.csv"
COLUMNS = {
    RUNS: ("task", "variant", "seed", "score", "last_score", "commit", "command"),
    CURVES: ("task", "variant", "seed", "step", "return"),
    PUBLISHED: ("task", "method", "return", "steps", "source", "protocol"),
}
"""Columns of each file of a suite."""


class Published(NamedTuple):
    """A published return."""

    task: str
    method: str
    value: float
    steps: int
    source: str
    protocol: str


@dataclass(frozen=True)
class Suite:
    """Recorded runs and published returns of the same tasks; tasks are environment ids."""

    name: str
    runs: list[Run]
    published: list[Published]

    def of(self, tasks: Sequence[str]) -> "Suite":
        """Return the runs and published returns of some tasks.

        Args:
            tasks: environment ids.

        Raises:
            ComparisonArgumentError: the suite has none of the tasks.
        """
        runs = [run for run in self.runs if run.task in tasks]
        published = [row for row in self.published if row.task in tasks]
        if not runs and not published:
            known = sorted({run.task for run in self.runs} | {row.task for row in self.published})
            raise ComparisonArgumentError(
                f"{self.name} has runs of {', '.join(known)}, got runs of {', '.join(tasks)}; "
                "leave it out, or name a suite with these tasks"
            )
        return Suite(self.name, runs, published)


def suite_names() -> list[str]:
    """Return the names of the suites in this package, sorted."""
    return sorted(path.name for path in RECORDED.iterdir() if (path / RUNS).is_file())


def read_suite(name: str | Path, *, last: bool = False) -> Suite:
    """Read recorded runs.

    Args:
        name: a suite of this package, see `suite_names`, or a directory with ``runs.csv``, ``curves.csv`` and
            optionally ``published.csv``.
        last: use the scores of the last weights of each run instead of the best weights.

    Returns:
        The suite. Its tasks are environment ids, and its variants end with the suite's name in parentheses.

    Raises:
        ComparisonArgumentError: there is no such suite or directory.
        ComparisonError: a file has other columns, or a value that is not a number.
    """
    directory = RECORDED / name if str(name) in suite_names() else Path(name)
    if not (directory / RUNS).is_file():
        if directory.is_dir():
            names = ", ".join(suite_names())
            raise ComparisonArgumentError(f"{directory}: expected {RUNS} in it; these suites have names: {names}")
        raise unknown("--with", str(name), "suite", suite_names())
    curves: dict[tuple[str, str, str], tuple[list[int], list[float]]] = {}
    for row, where in _rows(directory / CURVES):
        steps, returns = curves.setdefault((row["task"], row["variant"], row["seed"]), ([], []))
        steps.append(int(_number(row, "step", where)))
        returns.append(_number(row, "return", where))
    runs = [
        Run(
            f"{row['variant']} ({directory.name})",
            row["task"],
            int(_number(row, "seed", where)),
            _number(row, "last_score" if last else "score", where),
            curves.get((row["task"], row["variant"], row["seed"]), ((), ())),
            directory / RUNS,
        )
        for row, where in _rows(directory / RUNS)
    ]
    published = [
        Published(
            row["task"],
            row["method"],
            _number(row, "return", where),
            int(_number(row, "steps", where)),
            row["source"],
            row["protocol"],
        )
        for row, where in (_rows(directory / PUBLISHED) if (directory / PUBLISHED).is_file() else ())
    ]
    return Suite(directory.name, runs, published)


def published_table(published: Iterable[Published]) -> Table:
    """Return published returns as a table.

    Args:
        published: published returns of a suite.
    """
    rows = [[row.task, row.method, f"{row.value:.4g}", f"{row.steps:,}", row.source, row.protocol] for row in published]
    return Table("published", ["task", "method", "return", "steps", "source", "protocol"], rows)


def _rows(file: Path) -> Iterator[tuple[dict[str, str], str]]:
    """Yield the rows of a file, with their line numbers for errors."""
    columns = COLUMNS[file.name]
    with file.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        got = tuple(reader.fieldnames or ())
        if got != columns:
            raise ComparisonError(f"{file}: expected the columns {', '.join(columns)}, got {', '.join(got) or 'none'}")
        for row in reader:
            where = f"{file}:{reader.line_num}"
            if None in row or None in row.values():
                raise ComparisonError(f"{where}: expected {len(columns)} values; repair or remove the line")
            yield row, where


def _number(row: dict[str, str], column: str, where: str) -> float:
    try:
        return float(row[column])
    except ValueError:
        got = f"{row[column]!r:.60}"
        raise ComparisonError(f"{where}: {column}: expected a number, got {got}; repair the line") from None
