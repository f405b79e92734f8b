"""A comparison as tables for a person to read."""

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Table

from tesserl_trainer.analysis.comparison import AGGREGATES, Comparison
from tesserl_trainer.analysis.statistics import Interval, interquartile_mean


def comparison_tables(comparison: Comparison) -> Iterator[Table]:
    """Aggregates over all tasks, then the returns of each task by seed."""
    yield _aggregates(comparison)
    for task in comparison.tasks:
        yield _task(comparison, task)


def _aggregates(comparison: Comparison) -> Table:
    over = "all tasks" if len(comparison.tasks) > 1 else comparison.tasks[0]
    table = _table(f"{over}, with 95 % bootstrap intervals", "variant", "runs", *AGGREGATES)
    table.add_column(f"P(better than {comparison.reference})", justify="right")
    aggregates, improvements = comparison.aggregates, comparison.improvements
    for variant in comparison.complete:
        spread = comparison.has_spread(variant)
        compared = comparison.has_spread(variant, comparison.reference)
        table.add_row(
            variant,
            str(sum(map(len, comparison.strata(variant)))),
            *(_shown(value, spread=spread) for value in aggregates[variant].values()),
            _shown(improvements[variant], spread=compared) if variant in improvements else "-",
        )
    return table


def _task(comparison: Comparison, task: str) -> Table:
    seeds = sorted({run.seed for (_, name), runs in comparison.runs.items() if name == task for run in runs})
    table = _table(f"{task}, by seed", "variant", *map(str, seeds), "mean", "IQM")
    for variant in comparison.variants:
        runs = comparison.runs.get((variant, task), [])
        scores = {run.seed: run.score for run in runs}
        if runs:
            values = comparison.returns(variant, task)
            shown = [f"{scores[seed]:.4g}" if seed in scores else "-" for seed in seeds]
            table.add_row(variant, *shown, f"{values.mean():.4g}", f"{float(interquartile_mean(values)):.4g}")
    return table


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _shown(value: Interval, *, spread: bool) -> str:
    return f"{value.value:.4g} ({value.low:.4g} to {value.high:.4g})" if spread else f"{value.value:.4g} (one run)"
