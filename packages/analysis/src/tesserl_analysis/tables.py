"""Convert a comparison to sentences, text tables and JSON data."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from tesserl_analysis.comparison import AGGREGATES, Band, Comparison
from tesserl_analysis.statistics import FALSE_ALARMS, Interval, interquartile_mean

FEW = 5
"""With fewer runs than this, equal variants too often have disjoint intervals, see ``FALSE_ALARMS``."""


class Table(NamedTuple):
    """Text in rows and columns, for any table printer."""

    title: str
    header: list[str]
    rows: list[list[str]]


def comparison_tables(comparison: Comparison) -> Iterator[Table]:
    """Yield the table of aggregates over all tasks, then the returns of each task by seed.

    Args:
        comparison: comparison to show.
    """
    yield _aggregates(comparison)
    for task in comparison.tasks:
        yield _task(comparison, task)


def comparison_verdicts(comparison: Comparison) -> list[str]:
    """State whether each variant's 95 % interval of the interquartile mean is disjoint from the reference's.

    Args:
        comparison: comparison to judge.

    Returns:
        One sentence per variant, except the reference.
    """
    reference = comparison.reference
    if reference not in comparison.complete:
        return [f"{reference}, the reference, has no runs of some tasks: there is nothing to compare with"]
    return [_verdict(comparison, variant) for variant in comparison.complete if variant != reference]


def too_few(comparison: Comparison) -> list[str]:
    """Return the variants whose comparison has fewer than ``FEW`` runs on either side."""
    sizes = {name: sum(map(len, comparison.strata(name))) for name in (*comparison.complete, comparison.reference)}
    others = [name for name in comparison.complete if name != comparison.reference]
    return [name for name in others if min(sizes[name], sizes[comparison.reference]) < FEW]


def comparison_report(comparison: Comparison) -> dict[str, Any]:
    """Return all numbers of a comparison as JSON data; unknown numbers are null.

    Args:
        comparison: comparison to report.
    """
    return {
        "reference": comparison.reference,
        "bounds": comparison.bounds,
        "notes": comparison.notes(),
        "verdicts": comparison_verdicts(comparison),
        "too_few_runs": too_few(comparison),
        "aggregates": {
            variant: {name: _interval(value, comparison, variant) for name, value in values.items()}
            for variant, values in comparison.aggregates.items()
        },
        "improvements": {
            variant: _interval(value, comparison, variant, comparison.reference)
            for variant, value in comparison.improvements.items()
        },
        "profiles": _bands(comparison.profiles(), "threshold") if comparison.complete else {},
        "curves": _bands(comparison.curves(), "steps" if comparison.same_steps else "share"),
        "tasks": {
            task: {
                "returns": {
                    name: {str(run.seed): run.score for run in comparison.runs[name, task]}
                    for name in comparison.variants
                    if (name, task) in comparison.runs
                },
                "curves": _bands(comparison.curves(task), "steps"),
            }
            for task in comparison.tasks
        },
    }


def _verdict(comparison: Comparison, variant: str) -> str:
    reference, better = comparison.reference, comparison.improvements[variant]
    ours, theirs = (comparison.aggregates[name]["IQM"] for name in (variant, reference))
    pair = f"{variant} and {reference}"
    if single := [name for name in (variant, reference) if not comparison.has_spread(name)]:
        return f"{pair} cannot be told apart: a task of {single[0]} has a single run, which has no interval"
    intervals = f"{ours.low:.4g} to {ours.high:.4g} and {theirs.low:.4g} to {theirs.high:.4g}"
    if ours.low <= theirs.high and theirs.low <= ours.high:
        text = f"{pair} cannot be told apart: the 95 % intervals of their IQM overlap, {intervals}"
        if better.low <= 0.5 <= better.high:
            return text
        more = "more" if better.low > 0.5 else "less"
        return f"{text} (though run against run {variant} is the better one {more} often than not)"
    order = "above" if ours.low > theirs.high else "below"
    text = f"{variant} is {order} {reference}: the 95 % intervals of their IQM are apart, {intervals}"
    if variant not in too_few(comparison):
        return text
    sizes = [tuple(map(len, comparison.strata(name))) for name in (variant, reference)]
    few = min((size for size in sizes if size in FALSE_ALARMS), key=lambda size: FALSE_ALARMS[size])
    return (
        f"{text}, but {sum(few)} runs are too few to be sure: two equal variants of so few runs each "
        f"come out apart in about one of {FALSE_ALARMS[few]} such comparisons"
    )


def _aggregates(comparison: Comparison) -> Table:
    over = "all tasks" if len(comparison.tasks) > 1 else comparison.tasks[0]
    rows = []
    aggregates, improvements = comparison.aggregates, comparison.improvements
    for variant in comparison.complete:
        spread = comparison.has_spread(variant)
        compared = comparison.has_spread(variant, comparison.reference)
        count = str(sum(map(len, comparison.strata(variant))))
        shown = [_shown(value, spread=spread) for value in aggregates[variant].values()]
        better = _shown(improvements[variant], spread=compared) if variant in improvements else "-"
        rows.append([variant, count, *shown, better])
    names = list(next(iter(aggregates.values()), AGGREGATES))
    header = ["variant", "runs", *names, f"P(better than {comparison.reference})"]
    return Table(f"{over}, with 95 % bootstrap intervals", header, rows)


def _task(comparison: Comparison, task: str) -> Table:
    seeds = sorted({run.seed for (_, name), runs in comparison.runs.items() if name == task for run in runs})
    rows = []
    for variant in comparison.variants:
        runs = comparison.runs.get((variant, task), [])
        scores = {run.seed: run.score for run in runs}
        if runs:
            values = comparison.returns(variant, task)
            shown = [f"{scores[seed]:.4g}" if seed in scores else "-" for seed in seeds]
            rows.append([variant, *shown, f"{values.mean():.4g}", f"{float(interquartile_mean(values)):.4g}"])
    return Table(f"{task}, by seed", ["variant", *map(str, seeds), "mean", "IQM"], rows)


def _shown(value: Interval, *, spread: bool) -> str:
    return f"{value.value:.4g} ({value.low:.4g} to {value.high:.4g})" if spread else f"{value.value:.4g} (one run)"


def _interval(interval: Interval, comparison: Comparison, *variants: str) -> dict[str, float | None]:
    known = comparison.has_spread(*variants)
    return interval._asdict() if known else {"value": interval.value, "low": None, "high": None}


def _bands(bands: Mapping[str, Band], axis: str) -> dict[str, dict[str, list[float | None]]]:
    return {
        variant: {
            name: [None if np.isnan(value) else value for value in values.tolist()]
            for name, values in zip((axis, "value", "low", "high"), band, strict=True)
        }
        for variant, band in bands.items()
    }
