"""Statistics of few runs: aggregates with bootstrap intervals, performance profiles, probabilities of improvement.

Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (arXiv:2108.13264). The runs
of one task are a stratum: a resample draws as many runs of each task as there are, with replacement.
``strata`` are the scores of one variant, an array ``[runs]`` for each task; ``R`` counts resamples.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""Maps scores ``[..., N]`` to one number per row, ``[...]``."""

NUM_RESAMPLES = 10_000
EXACT_UP_TO = 50_000
"""Up to this number, all resamples are enumerated; if there are more, ``NUM_RESAMPLES`` are drawn."""

FALSE_ALARMS = {(2,): 3, (2, 2): 6, (3,): 10, (4,): 36}
"""Runs of each task -> of how many comparisons of two equal variants with so many runs one has 95 % intervals of the
IQM that are apart, counted with scores of one normal distribution. With fewer than five runs there are only these.
"""


class Interval(NamedTuple):
    """An estimate and two percentiles of its bootstrap distribution; both are values of resamples."""

    value: float
    low: float
    high: float


def interquartile_mean(scores: ArrayLike) -> Array:
    """Return the mean without the lowest and the highest quarter of the scores, each rounded down to whole scores.

    Section 4.3 of the paper; equal to ``scipy.stats.trim_mean(scores, 0.25)``.

    Args:
        scores: ``[..., N]``.

    Returns:
        ``[...]``.
    """
    scores = np.asarray(scores, np.float64)
    cut = scores.shape[-1] // 4
    return np.asarray(np.sort(scores, -1)[..., cut : scores.shape[-1] - cut].mean(-1))


def mean(scores: ArrayLike) -> Array:
    """Return the mean over the last axis."""
    return np.asarray(np.asarray(scores, np.float64).mean(-1))


def median(scores: ArrayLike) -> Array:
    """Return the median over the last axis."""
    return np.asarray(np.median(np.asarray(scores, np.float64), -1))


def optimality_gap(scores: ArrayLike, *, target: float = 1.0) -> Array:
    """Return the mean amount by which scores miss a target; scores above the target count as the target.

    Section 4.3 of the paper: ``target - E[min(score, target)]``. Lower is better, and 0 is best.

    Args:
        scores: scores ``[..., N]``, scaled so that ``target`` is the score to reach.
        target: target in units of the scores.

    Returns:
        ``[...]``.
    """
    return np.asarray(target - np.minimum(np.asarray(scores, np.float64), target).mean(-1))


def median_of_task_means(
    strata: Sequence[ArrayLike], *, level: float = 0.95, exact_up_to: int = EXACT_UP_TO
) -> Interval:
    """Return the median over tasks of the mean score of each task's runs, with its stratified bootstrap interval.

    Most papers on Atari before 2021 report it (section 4.1 of the paper). It depends on few tasks; prefer `interval` of
    `interquartile_mean`.

    Args:
        strata: scores of each task, ``[runs]``.
        level: probability mass of the interval, in (0, 1).
        exact_up_to: see ``resamples``.

    Raises:
        ValueError: see ``interval``.
    """
    strata = _checked(strata, "strata", 1)
    indices = resamples([len(scores) for scores in strata], exact_up_to=exact_up_to)
    means = np.stack([scores[index].mean(-1) for scores, index in zip(strata, indices, strict=True)], -1)  # [R, tasks]
    low, high = _bounds(np.median(means, -1), level)
    return Interval(float(np.median([scores.mean() for scores in strata])), float(low), float(high))


def resamples(
    sizes: Sequence[int], *, exact_up_to: int = EXACT_UP_TO, num_resamples: int = NUM_RESAMPLES
) -> list[NDArray[np.int64]]:
    """Draw the indices of stratified resamples; equal arguments give equal indices.

    Args:
        sizes: number of runs in each stratum, each at least 1.
        exact_up_to: enumerate all resamples if there are at most this many.
        num_resamples: number of resamples to draw otherwise.

    Returns:
        For each stratum indices ``[R, size]``.
    """
    count = math.prod(size**size for size in sizes)
    if count > exact_up_to:
        generator = np.random.default_rng(0)
        return [generator.integers(size, size=(num_resamples, size)) for size in sizes]
    number = np.arange(count)
    indices = []
    for size in sizes:  # digits of the resample's number in base `size`: every combination once
        digits = []
        for _ in range(size):
            number, digit = np.divmod(number, size)
            digits.append(digit)
        indices.append(np.stack(digits, -1))
    return indices


def interval(
    strata: Sequence[ArrayLike], statistic: Statistic, *, level: float = 0.95, exact_up_to: int = EXACT_UP_TO
) -> Interval:
    """Return a statistic of all runs of all tasks together, with its stratified percentile-bootstrap interval.

    Args:
        strata: scores of each task, ``[runs]``.
        statistic: statistic of the scores of all tasks, ``[..., N] -> [...]``.
        level: probability mass of the interval, in (0, 1).
        exact_up_to: see ``resamples``.

    Raises:
        ValueError: there is no task, a task has no run, or ``level`` is out of its range.
    """
    strata = _checked(strata, "strata", 1)
    indices = resamples([len(scores) for scores in strata], exact_up_to=exact_up_to)
    value, low, high = _bands(strata, statistic, level, indices)
    return Interval(float(value), float(low), float(high))


def performance_profile(
    strata: Sequence[ArrayLike], thresholds: ArrayLike, *, level: float = 0.95
) -> tuple[Array, Array, Array]:
    """Return the fraction of runs with a score above each threshold, with pointwise intervals (section 4.2).

    Args:
        strata: scores of each task, ``[runs]``.
        thresholds: thresholds ``[K]``, in units of the scores.
        level: probability mass of the intervals.

    Returns:
        Fraction, lower and upper bound, ``[K]`` each.

    Raises:
        ValueError: see ``interval``.
    """
    strata = _checked(strata, "strata", 1)
    above = [(scores[:, None] > np.asarray(thresholds)).astype(np.float64) for scores in strata]
    return _bands(above, lambda runs: np.asarray(runs.mean(-2)), level, _fewer(above))


def curve_band(strata: Sequence[ArrayLike], *, level: float = 0.95) -> tuple[Array, Array, Array]:
    """Return the interquartile mean at each point of curves, with pointwise intervals.

    Args:
        strata: curves of each task, ``[runs, points]``.
        level: probability mass of the intervals.

    Returns:
        Interquartile mean, lower and upper bound, ``[points]`` each.

    Raises:
        ValueError: see ``interval``.
    """
    strata = _checked(strata, "strata", 2)
    return _bands(strata, lambda runs: interquartile_mean(np.swapaxes(runs, -1, -2)), level, _fewer(strata))


def probability_of_improvement(
    ours: Sequence[ArrayLike], others: Sequence[ArrayLike], *, level: float = 0.95, exact_up_to: int = EXACT_UP_TO
) -> Interval:
    """Return the probability that our run beats another run on a random task; equal scores count half.

    Equation 2 of the paper: the mean over tasks of the Mann-Whitney statistic. Both sides are resampled.

    Args:
        ours: scores of each task, ``[runs]``.
        others: scores of the other variant for each task, ``[runs]``, with tasks in the same order.
        level: probability mass of the interval.
        exact_up_to: see ``resamples``.

    Raises:
        ValueError: see ``interval``, or the numbers of tasks differ.
    """
    ours, others = _checked(ours, "ours", 1), _checked(others, "others", 1)
    if len(ours) != len(others):
        raise ValueError(f"ours and others must hold the same tasks, got {len(ours)} and {len(others)} tasks")
    wins = [
        0.5 + 0.5 * np.sign(mine[:, None] - theirs) for mine, theirs in zip(ours, others, strict=True)
    ]  # per task [ours, others]
    sizes = [size for matrix in wins for size in matrix.shape]
    indices = resamples(sizes, exact_up_to=exact_up_to)
    drawn = [
        np.einsum("ri,ij,rj->r", _frequencies(left, len(matrix)), matrix, _frequencies(right, matrix.shape[1]))
        for matrix, left, right in zip(wins, indices[::2], indices[1::2], strict=True)
    ]
    low, high = _bounds(np.mean(drawn, 0), level)
    return Interval(float(np.mean([matrix.mean() for matrix in wins])), float(low), float(high))


def _checked(strata: Sequence[ArrayLike], name: str, ndim: int) -> list[Array]:
    """Return the scores or curves of each task as arrays; reject empty arrays and other numbers of axes."""
    arrays = [np.asarray(scores, np.float64) for scores in strata]
    if not arrays or any(scores.ndim != ndim or scores.size == 0 for scores in arrays):
        raise ValueError(
            f"{name} must hold an array {'[runs]' if ndim == 1 else '[runs, points]'} for each task, none empty, got "
            f"shapes {[scores.shape for scores in arrays]}; leave out tasks without runs"
        )
    return arrays


def _bands(
    strata: Sequence[Array], statistic: Statistic, level: float, indices: Sequence[NDArray[np.int64]]
) -> tuple[Array, Array, Array]:
    """Return a statistic over the runs of all tasks (the axis after that of the resamples), and its interval."""
    drawn = np.concatenate([scores[index] for scores, index in zip(strata, indices, strict=True)], 1)
    low, high = _bounds(statistic(drawn), level)
    return statistic(np.concatenate(list(strata))), low, high


def _bounds(drawn: Array, level: float) -> tuple[Array, Array]:
    """Return the percentiles ``(1 -+ level) / 2`` of the statistic of each resample ``[R, ...]``, ``[...]`` each.

    With few runs the distribution has few values. Each bound is one of these values, the inverse of the distribution
    function. Interpolation between two values could exclude a value with too much probability mass.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be in (0, 1), got {level}; 0.95 is usual")
    number = len(drawn)
    outside = max(math.ceil(number * (1 - level) / 2 - 1e-9) - 1, 0)  # 1e-9: 1 - 0.95 rounds to above 0.05
    ordered = np.partition(drawn, (outside, number - 1 - outside, number - 1), 0)
    undefined = np.isnan(ordered[-1])  # NaN sorts last
    low, high = (np.where(undefined, np.nan, ordered[place]) for place in (outside, number - 1 - outside))
    return low, high


def _fewer(strata: Sequence[Array]) -> list[NDArray[np.int64]]:
    """Return fewer resamples, for bands with many points, which need less precision."""
    return resamples([len(runs) for runs in strata], exact_up_to=5_000, num_resamples=2_000)


def _frequencies(index: NDArray[np.int64], size: int) -> Array:
    """Return how often each run occurs in each resample, as a fraction: ``[R, size]``."""
    rows = np.arange(len(index))[:, None] * size
    return np.bincount((index + rows).ravel(), minlength=len(index) * size).reshape(-1, size) / index.shape[1]
