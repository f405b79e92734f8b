"""``tesserl compare``: compare the variants of a sweep or of any runs. Imports no torch."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tesserl_analysis import (
    Comparison,
    ComparisonError,
    Run,
    comparison_report,
    comparison_tables,
    comparison_verdicts,
    plot_comparison,
    published_table,
    read_suite,
    run_files,
)
from tesserl_analysis.comparison import ComparisonArgumentError, unknown
from tesserl_storage.whole_files import write_json
from tesserl_trainer.console.tables import rich_table
from tesserl_trainer.inspect.normalization import parse_bounds
from tesserl_trainer.inspect.runs import SweepOrder, find_runs, identify, missing_runs, read_score, sweep_of
from tesserl_trainer.usage import check_places
from tesserl_training.metric_names import EVALUATION

SHOWN = 4
"""Most runs that a line names; it counts the others."""


def _listed(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(map(str, paths[:SHOWN])) + more


def compare(
    paths: Sequence[Path],
    *,
    by: str,
    metric: str,
    best: bool,
    reference: str | None,
    normalize: Sequence[str],
    tasks: Sequence[str],
    suite: str | None,
    strict: bool,
    json_path: Path | None,
    png_path: Path | None,
) -> None:
    """Print the comparison; the arguments are the options of the command."""
    check_places({"--json": json_path, "--png": png_path})
    if suite is not None and metric != EVALUATION:
        raise ComparisonArgumentError(f"--with has {EVALUATION} alone, got --metric {metric}; leave one of them out")
    found = _gather(paths, by=by, metric=metric, best=best, tasks=tasks, environments=suite is not None)
    lacking = [f"not finished: {_listed(found.unfinished)}"] if found.unfinished else []
    lacking += [f"never started or failed at once: {_listed(found.missing)}"] if found.missing else []
    if not found.runs:
        raise ComparisonError(f"{_listed(paths)}: there is no finished run to compare; {'; '.join(lacking)}")
    if strict and lacking:
        raise ComparisonError("; ".join([*lacking, "start the sweep again, which trains them, or leave out --strict"]))
    trained = list(dict.fromkeys(run.task for run in found.runs))
    recorded = read_suite(suite, last=not best).of(trained) if suite is not None else None
    order = [variant for sweep in found.sweeps for variant in sweep.variants] if by == "variant" else []
    if recorded:  # recorded runs come after the user's
        order += dict.fromkeys(run.variant for run in found.runs if run.variant not in order)
    comparison = Comparison(
        [*found.runs, *(recorded.runs if recorded else ())],
        reference=reference,
        bounds=parse_bounds(normalize, several_tasks=len(trained) > 1),
        tasks=[task for sweep in found.sweeps for task in sweep.tasks],
        variants=order,
    )
    weights = "best" if best else "last"
    scored = f"{metric}, {weights} weights" if metric == EVALUATION else f"{metric}, {weights} value"
    width = None if sys.stdout.isatty() else max(160, shutil.get_terminal_size().columns)
    console = Console(file=sys.stdout, highlight=False, width=width)
    published = recorded.published if recorded else []
    for table in [*comparison_tables(comparison), *([published_table(published)] if published else [])]:
        console.print(rich_table(table))
    notes = [scored, *(f"left out, {line}" for line in lacking)]
    for line in [*comparison_verdicts(comparison), *comparison.notes(), *notes]:
        console.print(line, markup=False, soft_wrap=True)
    if json_path is not None:
        left_out = {"left_out": list(map(str, found.unfinished)), "missing": list(map(str, found.missing))}
        others = {"metric": metric, "weights": weights, "published": [row._asdict() for row in published]}
        write_json(json_path, others | left_out | comparison_report(comparison))
    if png_path is not None:
        plot_comparison(comparison, png_path, metric=metric, title=scored)


@dataclass(frozen=True)
class _Found:
    """Runs to compare, and missing runs."""

    runs: list[Run]
    unfinished: list[Path]
    missing: list[Path]
    sweeps: list[SweepOrder]


def _gather(
    paths: Sequence[Path], *, by: str, metric: str, best: bool, tasks: Sequence[str], environments: bool
) -> _Found:
    """Read the runs below the paths; if ``tasks`` is not empty, only runs of these; tasks may be environment ids."""
    runs, unfinished, known = list[Run](), list[Path](), set[str]()
    located = find_runs(paths)
    sweeps = list(filter(None, map(sweep_of, dict.fromkeys([*paths, *(directory for directory, _ in located)]))))
    for directory, root in located:
        variant, task, seed = identify(directory, root, by=by, environments=environments)
        known.add(task)
        if tasks and task not in tasks:
            continue
        if (directory / run_files.EVALUATION).is_file():
            runs.append(Run(variant, task, seed, *read_score(directory, metric, last=not best), directory))
        else:
            unfinished.append(directory)
    known.update(task for sweep in sweeps for task in sweep.tasks if not environments)
    for task in tasks:
        if task not in known:
            raise unknown("--task", task, "task", sorted(known))
    return _Found(runs, unfinished, missing_runs(paths, tasks), sweeps)
