"""Compare the runs of several variants on several tasks."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from math import isfinite
from pathlib import Path

import numpy as np

from tesserl_analysis.statistics import (
    Array,
    Interval,
    curve_band,
    interquartile_mean,
    interval,
    mean,
    median,
    median_of_task_means,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
)

AGGREGATES = {"IQM": interquartile_mean, "mean": mean, "median": median}
POINTS = 51
"""Number of points of a performance profile, and of a curve if its runs were evaluated at different steps."""

Bounds = tuple[float, float]
Band = tuple[Array, Array, Array, Array]
"""Steps (or thresholds), value, lower and upper bound, ``[points]`` each."""


@dataclass(frozen=True)
class Run:
    """One finished run: its score, and its evaluations as (steps, values)."""

    variant: str
    task: str
    seed: int
    score: float
    curve: tuple[Sequence[int], Sequence[float]] = ((), ())
    path: Path | None = None
    """Directory of the run, for error messages."""


class ComparisonError(ValueError):
    """The runs cannot be compared in the requested way."""


class ComparisonArgumentError(ComparisonError):
    """An argument has an unknown name or a wrong form; the exit code is that of wrong usage."""

    exit_code = 2


def unknown(argument: str, name: str, what: str, known: Iterable[str]) -> ComparisonArgumentError:
    """Return the error for an argument with an unknown name."""
    return ComparisonArgumentError(f"{argument} {name}: no such {what}{hint(name, known)}")


def hint(name: str, known: Iterable[str]) -> str:
    """Return the closest name, or all names, as the end of a sentence."""
    legal = list(known)
    found = get_close_matches(name, legal, n=1)
    return f"; did you mean {found[0]}?" if found else f"; there are: {', '.join(legal) or 'none'}"


def _bounds_option(task: str) -> str:
    """Return the option of `tesserl compare` for the bounds of a task, quoted for a shell."""
    return shlex.join(["--normalize", f"{task}=LOW:HIGH"])


class Comparison:
    """The runs of several variants on several tasks.

    Args:
        runs: at least one.
        reference: variant to compare the others with; by default the first of ``variants`` that has runs.
        bounds: task -> the returns that become scores 0 and 1; None uses returns as scores. A task without bounds gets
            those of the reference: its mean return at its first evaluation, and its mean final return.
        tasks: names of tasks in display order; other tasks follow in the order of the runs.
        variants: names of variants in display order; other variants follow in the order of the runs.

    Raises:
        ComparisonError: there are no runs, or none of the reference; two runs have the same variant, task and seed;
            bounds are not a lower and a higher return, or belong to an unknown task.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        *,
        reference: str | None = None,
        bounds: Mapping[str, Bounds] | None = None,
        tasks: Sequence[str] = (),
        variants: Sequence[str] = (),
    ) -> None:
        if not runs:
            raise ComparisonError("there is no finished run to compare")
        self.tasks = _ordered((run.task for run in runs), tasks)
        self.variants = _ordered((run.variant for run in runs), variants)
        self.reference = reference or self.variants[0]
        self._passed_over = "" if reference or not variants or variants[0] in self.variants else variants[0]
        if self.reference not in self.variants:
            what = "variant with a finished run here" if self.reference in variants else "variant"
            raise unknown("reference", self.reference, what, self.variants)
        self.runs: dict[tuple[str, str], list[Run]] = {}
        for run in sorted(runs, key=lambda run: run.seed):
            beside = self.runs.setdefault((run.variant, run.task), [])
            if beside and beside[-1].seed == run.seed:
                places = " and ".join(str(same.path or same) for same in (beside[-1], run))
                raise ComparisonError(
                    f"{places} are both seed {run.seed} of {run.variant} on {run.task}; "
                    "leave one out, or give them different variants"
                )
            beside.append(run)
        self.bounds = None if bounds is None else self._bounds(bounds)
        everywhere = [name for name in self.variants if all((name, task) in self.runs for task in self.tasks)]
        self.complete = everywhere
        """Variants with runs of every task; others have no aggregates, because these would cover other tasks."""

    def _bounds(self, given: Mapping[str, Bounds]) -> dict[str, Bounds]:
        for task in given:
            if task not in self.tasks:
                raise unknown("bounds of", task, "task", self.tasks)
        bounds = {}
        for task in self.tasks:
            runs = self.runs.get((self.reference, task), [])
            if task not in given and not (runs and all(run.curve[1] for run in runs)):
                raise ComparisonError(
                    f"{task}: the reference {self.reference} has no runs with evaluations to take bounds from; "
                    f"give bounds of {task}, such as {_bounds_option(task)} of tesserl compare"
                )
            low, high = given.get(task) or (
                float(np.mean([run.curve[1][0] for run in runs])),
                float(np.mean([run.score for run in runs])),
            )
            if not (isfinite(low) and isfinite(high) and low < high):  # or the better run scores lower
                source = "" if task in given else f", the first evaluation and the score of {self.reference}"
                raise (ComparisonArgumentError if task in given else ComparisonError)(
                    f"{task}: 0 would be {low:.6g} and 1 would be {high:.6g}{source}, but scores need a "
                    f"finite return and a higher one; give bounds of {task}, such as {_bounds_option(task)} of "
                    "tesserl compare"
                )
            bounds[task] = (low, high)
        return bounds

    def scale(self, task: str, values: Array) -> Array:
        """Convert returns of a task to scores."""
        low, high = self.bounds[task] if self.bounds is not None else (0.0, 1.0)
        return (values - low) / (high - low)

    def strata(self, variant: str) -> list[Array]:
        """Return the scores of a variant, ``[runs]`` for each task with runs."""
        tasks = [task for task in self.tasks if (variant, task) in self.runs]
        return [self.scale(task, self.returns(variant, task)) for task in tasks]

    def returns(self, variant: str, task: str) -> Array:
        """Return the unscaled returns, ordered by seed, ``[runs]``."""
        return np.array([run.score for run in self.runs.get((variant, task), [])])

    def has_spread(self, *variants: str) -> bool:
        """Return whether every task has at least two runs; the bootstrap interval of a single run has no width."""
        return all(len(scores) > 1 for variant in variants for scores in self.strata(variant))

    @cached_property
    def aggregates(self) -> dict[str, dict[str, Interval]]:
        """Return estimates and intervals: variant -> name of the aggregate -> interval.

        With several tasks they include the median of the task means; with bounds, the optimality gap.
        """
        found = {}
        for variant in self.complete:
            strata = self.strata(variant)
            found[variant] = {name: interval(strata, statistic) for name, statistic in AGGREGATES.items()}
            if len(self.tasks) > 1:
                found[variant]["median of task means"] = median_of_task_means(strata)
            if self.bounds is not None:
                found[variant]["optimality gap"] = interval(strata, optimality_gap)
        return found

    @cached_property
    def improvements(self) -> dict[str, Interval]:
        """Return variant -> probability of improvement over the reference, on the tasks for which both have runs."""
        found = {}
        for variant in self.variants:
            common = [task for task in self.tasks if {(variant, task), (self.reference, task)} <= self.runs.keys()]
            if variant != self.reference and common:
                ours, theirs = ([self.returns(name, task) for task in common] for name in (variant, self.reference))
                found[variant] = probability_of_improvement(ours, theirs)
        return found

    def profiles(self) -> dict[str, Band]:
        """Return variant -> thresholds and the fraction of its runs above each threshold."""
        scores = np.concatenate([np.concatenate(self.strata(variant)) for variant in self.complete])
        thresholds = np.linspace(scores.min(), scores.max(), POINTS)
        return {
            name: (thresholds, *self._known(performance_profile(self.strata(name), thresholds), self.strata(name)))
            for name in self.complete
        }

    def curves(self, task: str | None = None) -> dict[str, Band]:
        """Return variant -> interquartile mean of its evaluations.

        Args:
            task: task whose returns are shown over environment steps. None: the scores of all tasks over steps, or over
                the fraction of each task's steps if tasks have different numbers of steps.
        """
        return {
            variant: band
            for variant in (self.variants if task else self.complete)
            if (band := self._curve(variant, [task] if task else self.tasks, scaled=task is None)) is not None
        }

    @property
    def same_steps(self) -> bool:
        """Return whether all tasks were trained for the same number of steps, within 2 %."""
        last = [self._last_step(task) for task in self.tasks]
        return max(last) <= 1.02 * min(last)

    def _last_step(self, task: str) -> int:
        runs = [run for (_, name), runs in self.runs.items() if name == task for run in runs]
        return max((run.curve[0][-1] for run in runs if run.curve[0]), default=0)

    def _curve(self, variant: str, tasks: list[str], *, scaled: bool) -> Band | None:
        runs = [[run.curve for run in self.runs.get((variant, task), [])] for task in tasks]
        flat = [curve for curves in runs for curve in curves]
        if not flat or not all(steps for steps, _ in flat):
            return None
        shared = len(tasks) > 1 and not self.same_steps
        ends = [self._last_step(task) if shared else 1.0 for task in tasks]
        grid = np.array(flat[0][0], float) / ends[0]
        if any(list(steps) != list(flat[0][0]) for steps, _ in flat):
            spans = [
                (steps[0] / end, steps[-1] / end) for curves, end in zip(runs, ends, strict=True) for steps, _ in curves
            ]
            grid = np.linspace(max(first for first, _ in spans), min(last for _, last in spans), POINTS)
        strata = []
        for task, curves, end in zip(tasks, runs, ends, strict=True):
            values = np.array([np.interp(grid, np.array(steps) / end, values) for steps, values in curves])
            strata.append(self.scale(task, values) if scaled else values)
        return grid, *self._known(curve_band(strata), strata)

    def _known(self, band: tuple[Array, Array, Array], strata: Sequence[Array]) -> tuple[Array, Array, Array]:
        """Replace the bounds of a band by NaN if a task has a single run."""
        value, low, high = band
        unknown = np.nan if any(len(runs) < 2 for runs in strata) else 0.0
        return value, low + unknown, high + unknown

    def notes(self) -> list[str]:
        """Describe the conversion of returns to scores, and the columns of the table."""
        if self.bounds is None:
            notes = ["returns as they are"]
        else:
            shown = "; ".join(f"{task}: 0 is {low:.4g}, 1 is {high:.4g}" for task, (low, high) in self.bounds.items())
            notes = [f"scores: returns scaled for each task, {shown}"]
        if self._passed_over:
            notes.append(
                f"the reference is {self.reference}, as {self._passed_over}, the first variant of the sweep, has no "
                "finished run here; name another reference to change that"
            )
        notes += [
            f"{name} has no runs of {', '.join(task for task in self.tasks if (name, task) not in self.runs)}: "
            "it is in the tables of its tasks only"
            for name in self.variants
            if name not in self.complete
        ]
        return notes


def _ordered(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """Return distinct names: those in ``order`` first, in this order, then the others."""
    places = {name: place for place, name in enumerate(dict.fromkeys(order))}
    return sorted(dict.fromkeys(names), key=lambda name: places.get(name, len(places)))
