"""Aggregates and their bootstrap, against numbers by hand and the enumeration of all resamples."""

from itertools import combinations, product

import numpy as np
import pytest

from tesserl_analysis.statistics import (
    FALSE_ALARMS,
    curve_band,
    interquartile_mean,
    interval,
    mean,
    median,
    median_of_task_means,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    resamples,
)


def array(*values: float) -> np.ndarray:
    return np.array(values, float)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 2.0, 9.0], 4.0),  # a quarter of three is less than a score: nothing is cut
        ([9.0, 1.0, 2.0, 4.0], 3.0),
        ([100.0, 3.0, 1.0, 2.0, -50.0], 2.0),
        ([8.0, 1.0, 2.0, 3.0, 5.0, 100.0, 6.0, 0.0], (2 + 3 + 5 + 6) / 4),
    ],
)
def test_the_interquartile_mean_is_that_of_the_middle_half(scores, expected):
    assert interquartile_mean(array(*scores)) == pytest.approx(expected)
    assert interquartile_mean(np.stack([array(*scores)] * 2)) == pytest.approx([expected] * 2)


def test_the_optimality_gap_counts_scores_above_the_target_as_the_target():
    assert optimality_gap([0.5, 2.0, 0.9, 1.0]) == pytest.approx((0.5 + 0.0 + 0.1 + 0.0) / 4)
    assert optimality_gap([[1.0, 3.0], [5.0, 5.0]], target=4.0) == pytest.approx([(3 + 1) / 2, 0.0])


def test_the_median_of_task_means_weighs_tasks_equally_and_resamples_each():
    strata = [array(0.0, 1.0, 5.0), array(10.0, 20.0), array(3.0)]  # means 2, 15 and 3
    found = median_of_task_means(strata)
    expected = [
        np.median([np.mean(first), np.mean(second), 3.0])
        for first in product(strata[0], repeat=3)
        for second in product(strata[1], repeat=2)
    ]
    assert found.value == 3.0
    assert (found.low, found.high) == percentiles(expected, 0.025)
    assert median([score for scores in strata for score in scores]) == 4.0


@pytest.mark.parametrize("sizes", [[1], [3], [2, 3], [2, 1, 2]])
def test_all_resamples_are_each_there_once(sizes):
    indices = resamples(sizes)
    combined = [tuple(row) for row in np.concatenate(indices, 1)]
    expected = product(*(range(size) for size in sizes for _ in range(size)))
    assert sorted(combined) == sorted(expected)


def test_more_resamples_are_drawn_and_always_the_same():
    first, second = resamples([9, 4], exact_up_to=100), resamples([9, 4], exact_up_to=100)
    assert [index.shape for index in first] == [(10_000, 9), (10_000, 4)]
    assert all(np.array_equal(left, right) for left, right in zip(first, second, strict=True))
    for index, size in zip(first, [9, 4], strict=True):
        assert np.bincount(index.ravel(), minlength=size) / index.size == pytest.approx(1 / size, abs=0.01)


def percentiles(values, tail):
    """Return the smallest value with more than `tail` of the mass at or below it, and its mirror image."""
    ordered = sorted(values)
    low = next(value for value in ordered if sum(other <= value for other in ordered) / len(ordered) >= tail)
    high = next(value for value in ordered[::-1] if sum(other >= value for other in ordered) / len(ordered) >= tail)
    return float(low), float(high)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([3], (3, 3, 3)),
        ([0, 1], (0.5, 0, 1)),  # means 0, 1/2, 1/2, 1: each end has a quarter of the mass
        ([0, 1, 2], (1, 0, 2)),  # each end has 1/27, more than 0.025
        ([0, 1, 2, 3], (1.5, 0, 3)),  # the middle half is 0, 0 where three runs or all are 0: 13/256, 0.051
        ([0, 1, 2, 3, 4], (2, 1 / 3, 11 / 3)),  # IQM 0 needs four runs of 0: 21 of 3125, 0.0067; 1/3 is next
    ],
)
def test_bounds_of_an_interval_of_few_runs_are_values_of_resamples(scores, expected):
    assert interval([array(*scores)], interquartile_mean) == pytest.approx(expected)


def test_an_interval_of_mirrored_scores_is_the_mirrored_interval():
    generator = np.random.default_rng(0)
    for size in (2, 3, 4, 5, 7):  # of 7 runs 10,000 resamples are drawn, of which 250 are exactly 0.025
        scores = generator.normal(size=size)
        value, low, high = interval([scores], median)
        assert interval([-scores], median) == (-value, -high, -low)


def test_bounds_of_undefined_scores_are_undefined():
    value, low, high = curve_band([np.array([[1.0, np.nan], [2.0, 3.0]])])
    assert (low[0], high[0]) == (1, 2)
    assert np.isnan([value[1], low[1], high[1]]).all()


@pytest.mark.parametrize("statistic", [mean, median, interquartile_mean])
def test_intervals_over_tasks_equal_the_enumeration_of_all_resamples(statistic):
    strata = [array(1, 4, 9), array(-2, 0), array(5, 5.5)]
    every = [
        statistic(array(*(score for part in parts for score in part)))
        for parts in product(*(list(product(scores, repeat=len(scores))) for scores in strata))
    ]
    low, high = percentiles(every, 0.05)
    value = float(statistic(array(1, 4, 9, -2, 0, 5, 5.5)))
    assert tuple(interval(strata, statistic, level=0.9)) == pytest.approx((value, low, high))


def test_drawn_resamples_come_close_to_all_of_them():
    scores = [array(3, 9, 1, 7, 20)]
    exact, drawn = interval(scores, mean), interval(scores, mean, exact_up_to=0)
    assert tuple(drawn) == pytest.approx(tuple(exact), abs=0.5)
    assert drawn != exact


def test_tasks_are_strata():
    apart = [array(0, 0), array(100, 100)]
    assert interval(apart, mean) == (50, 50, 50)
    assert interval([np.concatenate(apart)], mean).high > 50


def test_a_profile_counts_the_runs_above_each_threshold():
    fraction, low, high = performance_profile([array(1, 2), array(3)], array(0, 1, 2.5, 3))
    assert fraction == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert (low[0], high[0], low[3], high[3]) == (1, 1, 0, 0)
    # the run of the second task is in every resample; those of the first are above 1 never, once or twice
    assert (low[1], high[1]) == pytest.approx((1 / 3, 1))


@pytest.mark.parametrize(
    ("ours", "others", "expected"),
    [
        ([[1, 3]], [[2, 2]], 0.5),
        ([[2]], [[2]], 0.5),
        ([[5, 6]], [[1, 2, 3]], 1.0),
        ([[1, 2, 3]], [[2]], 0.5),
        ([[5, 6], [0]], [[1], [1, 2]], 0.5),  # every task counts the same: 1 and 0
        ([[4, 1]], [[1, 3]], (1 + 1 + 0.5 + 0) / 4),
    ],
)
def test_the_probability_of_improvement_is_the_share_of_pairs_won(ours, others, expected):
    strata = [[array(*task) for task in side] for side in (ours, others)]
    assert probability_of_improvement(*strata).value == pytest.approx(expected)
    assert probability_of_improvement(*strata[::-1]).value == pytest.approx(1 - expected)


def test_its_interval_resamples_both_sides():
    ours, others = [1.0, 4.0, 3.0], [2.0, 3.0]
    every = [
        np.mean([(a > b) + 0.5 * (a == b) for a in left for b in right])
        for left in product(ours, repeat=3)
        for right in product(others, repeat=2)
    ]
    low, high = percentiles(every, 0.025)
    found = probability_of_improvement([array(*ours)], [array(*others)])
    assert found == pytest.approx((np.mean([0, 0, 1, 1, 1, 0.5]), low, high))
    drawn = probability_of_improvement([array(*ours)], [array(*others)], exact_up_to=0)
    assert drawn == pytest.approx(found, abs=0.02)


def test_the_band_of_curves_is_the_interval_at_each_point():
    curves = [np.array([[1.0, 5.0], [2.0, 5.0], [6.0, 8.0]]), np.array([[0.0, 1.0], [3.0, 2.0]])]
    value, low, high = curve_band(curves)
    for point in range(2):
        expected = interval([task[:, point] for task in curves], interquartile_mean)
        assert (value[point], low[point], high[point]) == pytest.approx(expected)


def test_equal_variants_of_three_runs_come_out_apart_in_one_of_ten_comparisons():
    scores = np.random.default_rng(0).normal(size=6)  # any six: all ways to deal them to two variants
    dealt = [(scores[list(ours)], np.delete(scores, ours)) for ours in combinations(range(6), 3)]
    pairs = [[interval([side], interquartile_mean) for side in sides] for sides in dealt]
    apart = [left.low > right.high or right.low > left.high for left, right in pairs]
    assert (sum(apart), len(apart)) == (2, 20)
    assert FALSE_ALARMS[(3,)] == 10


@pytest.mark.parametrize(("sizes", "one_of"), FALSE_ALARMS.items())
def test_false_alarms_are_as_often_as_is_said(sizes, one_of):
    generator = np.random.default_rng(0)

    def drawn():
        return interval([generator.normal(size=size) for size in sizes], interquartile_mean)

    pairs = [(drawn(), drawn()) for _ in range(2_000)]
    apart = np.mean([left.low > right.high or right.low > left.high for left, right in pairs])
    assert apart == pytest.approx(1 / one_of, rel=0.25)


def test_lists_are_as_good_as_arrays():
    lists, arrays = [[1.0, 3.0, 9.0], [2.0, 5.0]], [array(1, 3, 9), array(2, 5)]
    assert interval(lists, interquartile_mean) == interval(arrays, interquartile_mean)
    assert probability_of_improvement(lists, lists[::-1]) == probability_of_improvement(arrays, arrays[::-1])
    assert interquartile_mean([9.0, 1.0, 2.0, 4.0]) == mean([3.0]) == median([3.0, 1.0, 4.0]) == 3.0


@pytest.mark.parametrize(
    ("strata", "shapes"), [([], r"\[\]"), ([[1.0], []], r"\[\(1,\), \(0,\)\]"), ([[[1.0, 2.0]]], r"\[\(1, 2\)\]")]
)
def test_scores_that_are_not_those_of_tasks_are_refused(strata, shapes):
    message = rf"must hold an array \[runs\] for each task, none empty, got shapes {shapes}; leave out tasks without"
    with pytest.raises(ValueError, match=f"strata {message}"):
        interval(strata, mean)
    with pytest.raises(ValueError, match=f"strata {message}"):
        performance_profile(strata, [0.0])
    with pytest.raises(ValueError, match=f"ours {message}"):
        probability_of_improvement(strata, [[1.0]])


def test_curves_need_points():
    with pytest.raises(ValueError, match=r"strata must hold an array \[runs, points\] for each task"):
        curve_band([[1.0, 2.0]])


def test_numbers_of_tasks_that_differ_are_refused():
    with pytest.raises(ValueError, match="ours and others must hold the same tasks, got 1 and 2 tasks"):
        probability_of_improvement([[1.0]], [[1.0], [2.0]])


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_a_level_that_is_no_probability_is_refused(level):
    with pytest.raises(ValueError, match=rf"level must be in \(0, 1\), got {level}"):
        interval([[1.0, 2.0]], mean, level=level)
