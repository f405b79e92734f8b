"""``tesserl compare``: what the runs of a sweep, or any runs, say about their variants. Imports no torch."""

import json
import math
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from tesserl_configs.document import parse
from tesserl_trainer.analysis.comparison import Bounds, Comparison, ComparisonError, Run
from tesserl_trainer.analysis.plots import plot_comparison
from tesserl_trainer.analysis.record import read_metrics, series
from tesserl_trainer.analysis.tables import comparison_tables
from tesserl_trainer.run.files import write_json
from tesserl_trainer.run.sweep import ORDER

EVALUATION = "evaluation/return"
SEED = re.compile(r"seed-\d+")


def find_runs(paths: Iterable[Path]) -> list[tuple[Path, Path]]:
    """The runs in directories, and the directory that each was found from.

    Args:
        paths: runs, or directories that hold some at any depth.

    Returns:
        (run's directory, one of ``paths``), sorted by name below each path.

    Raises:
        ComparisonError: there is no run in one of the paths.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        here = sorted((config.parent for config in path.rglob("config.yaml")), key=_natural) if path.is_dir() else []
        if not here:
            raise ComparisonError(f"{path}: no run here (no config.yaml in or below it); name a run or a sweep")
        for run in here:
            found.setdefault(run, path)
    return list(found.items())


def in_order(runs: Iterable[Run], paths: Iterable[Path]) -> list[Run]:
    """Runs in the order of tasks and variants that the directories' sweeps say; others behind, as they were."""
    orders = [json.loads(file.read_text(encoding="utf-8")) for path in paths if (file := path / ORDER).is_file()]
    places = {
        (key, name): place for key in ("tasks", "variants") for order in orders for place, name in enumerate(order[key])
    }
    last = len(places)
    return sorted(
        runs,
        key=lambda run: (places.get(("tasks", run.task), last), places.get(("variants", run.variant), last)),
    )


def identify(directory: Path, root: Path, *, by: str) -> tuple[str, str, int]:
    """Variant, task and seed of a run.

    Args:
        directory: of the run.
        root: the directory that it was found from: ``<task>/<variant>/seed-<n>`` below it names task and variant,
            as does ``<variant>/seed-<n>``; where that is missing, the environment and the configuration's name do.
        by: ``variant``, or the dotted key of the configuration whose values are the variants.

    Raises:
        ComparisonError: its configuration has no such key.
    """
    config = parse((directory / "config.yaml").read_text(encoding="utf-8")).data
    names = _below(directory, root)
    task = names[-3] if len(names) > 2 else _value(config, "environment.id", directory)
    if by == "variant" and len(names) > 1:
        variant = names[-2]
    else:
        variant = _value(config, "name" if by == "variant" else by, directory)
    return variant, task, int(config["seed"])


def read_score(directory: Path, metric: str, *, last: bool) -> tuple[float, tuple[list[int], list[float]]]:
    """What a finished run came to.

    Args:
        directory: of the run.
        metric: name in ``metrics.csv``.
        last: score the last weights (of another metric than the evaluations' return: its last value) and not the best.

    Returns:
        The score, and the metric as (steps, values).

    Raises:
        ComparisonError: the run has no such metric, or the score is not finite.
    """
    curve = series(read_metrics(directory / "metrics.csv"), metric)
    if metric == EVALUATION:
        evaluation = json.loads((directory / "evaluation.json").read_text(encoding="utf-8"))
        score = evaluation["last_return_mean" if last else "return_mean"]
    elif curve[1]:
        score = curve[1][-1] if last else max(curve[1])
    else:
        raise ComparisonError(f"{directory}: has no metric {metric}; the second column of its metrics.csv names them")
    if not math.isfinite(score):
        raise ComparisonError(f"{directory}: {metric} is {score}; leave the run out")
    return float(score), curve


def _below(directory: Path, root: Path) -> tuple[str, ...]:
    """The names of task, variant and run that the layout of a sweep gives; ``()`` for a loose run."""
    if not SEED.fullmatch(directory.resolve().name):
        return ()
    names = directory.relative_to(root).parts
    return names if len(names) > 1 else directory.resolve().parts[-2:]


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts seed-10 behind seed-9."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", str(path))]


def _value(config: Any, key: str, directory: Path) -> str:
    for part in key.split("."):
        if not isinstance(config, dict) or part not in config:
            raise ComparisonError(f"{directory}: its config.yaml has no key {key}; --by takes variant or a dotted key")
        config = config[part]
    return config if isinstance(config, str) else json.dumps(config)


def parse_bounds(values: Sequence[str], *, several_tasks: bool) -> dict[str, Bounds] | None:
    """What ``--normalize`` says.

    Args:
        values: ``none``, ``reference``, or ``TASK=LOW:HIGH`` each.
        several_tasks: whether returns of different tasks come together, which are scaled if nothing is said.

    Raises:
        ComparisonError: it says something else.
    """
    if "none" in values and len(values) > 1:
        raise ComparisonError("--normalize none: stands alone")
    if not values or list(values) == ["none"]:
        return {} if several_tasks and not values else None
    bounds: dict[str, Bounds] = {}
    for value in values:
        if value == "reference":
            continue
        task, _, numbers = value.rpartition("=")
        try:
            low, high = map(float, numbers.split(":"))
        except ValueError:
            raise ComparisonError(
                f"--normalize {value}: expected none, reference or TASK=LOW:HIGH, such as breakout=0:20"
            ) from None
        bounds[task] = (low, high)
    return bounds


@click.command(name="compare", help="Compare the runs of a sweep: intervals, tables and a picture.")
@click.argument("paths", metavar="RUNS...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--by", default="variant", show_default=True, help="What is compared: variant, or a key of the configs.")
@click.option("--metric", default=EVALUATION, show_default=True, help="A name of metrics.csv.")
@click.option("--best/--final", default=True, help="Score the best weights (default) or the last ones.")
@click.option("--reference", metavar="NAME", help="The variant that the others are compared with. [the first]")
@click.option(
    "--normalize",
    multiple=True,
    metavar="none|reference|TASK=LOW:HIGH",
    help="How returns become scores. [reference where there are several tasks]",
)
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only this task; may be repeated.")
@click.option("--strict", is_flag=True, help="A run that is not finished is an error.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all numbers to this file.")
@click.option("--png", "png_path", type=click.Path(path_type=Path), help="Draw them to this file.")
def command(
    paths: Sequence[Path],
    by: str,
    metric: str,
    best: bool,
    reference: str | None,
    normalize: Sequence[str],
    tasks: Sequence[str],
    strict: bool,
    json_path: Path | None,
    png_path: Path | None,
) -> None:
    """Prints tables and sentences."""
    runs: list[Run] = []
    unfinished: list[Path] = []
    for directory, root in find_runs(paths):
        variant, task, seed = identify(directory, root, by=by)
        if tasks and task not in tasks:
            continue
        if (directory / "evaluation.json").is_file():
            runs.append(Run(variant, task, seed, *read_score(directory, metric, last=not best), directory))
        else:
            unfinished.append(directory)
    if strict and unfinished:
        raise ComparisonError("not finished: " + ", ".join(map(str, unfinished)))
    bounds = parse_bounds(normalize, several_tasks=len({run.task for run in runs}) > 1)
    comparison = Comparison(in_order(runs, paths), reference=reference, bounds=bounds)
    weights = "best" if best else "last"
    scored = f"{metric}, {weights} weights" if metric == EVALUATION else f"{metric}, {weights} value"
    notes = [scored, *(f"left out, not finished: {run}" for run in unfinished)]
    width = None if sys.stdout.isatty() else max(160, shutil.get_terminal_size().columns)
    console = Console(file=sys.stdout, highlight=False, width=width)
    for table in comparison_tables(comparison):
        console.print(table)
    for line in [*comparison.verdicts(), *comparison.notes(), *notes]:
        console.print(line, markup=False, soft_wrap=True)
    if json_path is not None:
        write_json(
            json_path,
            {"metric": metric, "weights": weights, "left_out": list(map(str, unfinished))} | comparison.report(),
        )
    if png_path is not None:
        plot_comparison(comparison, png_path, metric=metric, title=scored)
