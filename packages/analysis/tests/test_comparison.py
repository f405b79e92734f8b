"""Comparisons of runs whose numbers are known: scores, curves, sentences, tables and JSON data."""

import json
from pathlib import Path

import numpy as np
import pytest

from tesserl_analysis import (
    Comparison,
    ComparisonError,
    Run,
    comparison_report,
    comparison_tables,
    comparison_verdicts,
)

SCORES = {
    ("first", "base"): (10, 12, 14),
    ("first", "low"): (1, 2, 3),
    ("first", "odd"): (9, 12, 15),
    ("second", "base"): (110, 100, 120),
    ("second", "low"): (50, 55, 60),
}


def run(variant, task, seed, score):
    """A run whose evaluations rise from 0 to its score."""
    return Run(variant, task, seed, score, ((100, 200, 300), (0.0, score / 2, score)), Path(f"{variant}-{seed}"))


@pytest.fixture
def runs():
    """Two tasks, two variants, three seeds; ``odd`` has no runs of the second task."""
    return [
        run(variant, task, seed, score)
        for (task, variant), scores in SCORES.items()
        for seed, score in enumerate(scores, 1)
    ]


def test_scores_are_scaled_by_the_reference(runs):
    comparison = Comparison(runs, bounds={})
    assert comparison.reference == "base"
    assert comparison.bounds == {"first": (0.0, 12.0), "second": (0.0, 110.0)}
    np.testing.assert_allclose(comparison.strata("low"), [[1 / 12, 2 / 12, 3 / 12], [50 / 110, 55 / 110, 60 / 110]])
    # six scores, the middle four: 2/12, 3/12, 50/110, 55/110
    assert comparison.aggregates["low"]["IQM"].value == pytest.approx((5 / 12 + 105 / 110) / 4)
    low = comparison.aggregates["low"]  # means 2/12 and 55/110; none of the six scores reaches 1
    assert low["median of task means"].value == pytest.approx((2 / 12 + 55 / 110) / 2)
    assert low["optimality gap"].value == pytest.approx(1 - (2 / 12 + 55 / 110) / 2)
    assert comparison.complete == ["base", "low"]
    assert "odd has no runs of second: it is in the tables of its tasks only" in comparison.notes()


def test_curves_of_one_task_are_returns_at_the_evaluations(runs):
    steps, value, low, high = Comparison(runs).curves("first")["low"]
    assert steps.tolist() == [100, 200, 300]
    assert value.tolist() == [0, 1, 2]
    assert (low.tolist(), high.tolist()) == ([0, 0.5, 1], [0, 1.5, 3])  # of three runs the least and the greatest


def test_a_report_is_json_and_says_what_is_unknown_by_null(runs):
    report = json.loads(
        json.dumps(comparison_report(Comparison([*runs, run("one", "first", 1, 5.0)])), allow_nan=False)
    )
    assert report["tasks"]["first"]["returns"]["low"] == {"1": 1, "2": 2, "3": 3}
    assert report["improvements"]["low"] == {"value": 0, "low": 0, "high": 0}
    assert report["improvements"]["one"] == {"value": 0, "low": None, "high": None}
    assert report["reference"] == "base"


def test_tables_are_text(runs):
    over_all, first, second = comparison_tables(Comparison(runs, bounds={}))
    assert over_all.title == "all tasks, with 95 % bootstrap intervals"
    shared = ["variant", "runs", "IQM", "mean", "median"]
    assert over_all.header == [*shared, "median of task means", "optimality gap", "P(better than base)"]
    assert next(comparison_tables(Comparison(runs[:3]))).header == [*shared, "P(better than base)"]
    assert [row[:2] for row in over_all.rows] == [["base", "6"], ["low", "6"]]
    assert first.header == ["variant", "1", "2", "3", "mean", "IQM"]
    assert first.rows[2] == ["odd", "9", "12", "15", "12", "12"]
    assert [row[0] for row in second.rows] == ["base", "low"]


def test_a_run_that_is_missing_is_a_dash(runs):
    tables = list(comparison_tables(Comparison([one for one in runs if (one.variant, one.seed) != ("low", 2)])))
    assert tables[1].rows[1] == ["low", "1", "-", "3", "2", "2"]


def test_overlapping_intervals_do_not_hide_that_one_wins_more_often():
    def several(variant, *scores):
        return [
            Run(variant, "t", seed, score, ([1], [score]), Path(f"{variant}-{seed}"))
            for seed, score in enumerate(scores)
        ]

    comparison = Comparison([*several("a", 499, 498, 499.5, 498), *several("b", 500, 500, 400, 500)])
    assert comparison_verdicts(comparison)[0].endswith("overlap, 400 to 500 and 498 to 499.5")
    comparison = Comparison([*several("a", 498.4, 500, 498.4, 500, 498.7), *several("b", 500, 500, 500, 500, 500)])
    assert comparison_verdicts(comparison)[0].endswith(
        "(though run against run b is the better one more often than not)"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": "bas"}, "reference bas: no such variant; did you mean base?"),
        ({"bounds": {"third": (0.0, 1.0)}}, "bounds of third: no such task; there are: first, second"),
        ({"bounds": {"first": (20.0, 0.0)}}, "first: 0 would be 20 and 1 would be 0, but scores need"),
        ({"bounds": {}, "reference": "odd"}, "second: the reference odd has no runs with evaluations to take bounds"),
    ],
)
def test_mistakes_are_named(runs, options, message):
    with pytest.raises(ComparisonError) as caught:
        Comparison(runs, **options)
    assert message in str(caught.value)


def test_a_seed_that_stands_twice_is_named_with_its_directories(runs):
    with pytest.raises(ComparisonError, match="low-1 and low-1 are both seed 1 of low on first"):
        Comparison([*runs, run("low", "first", 1, 4.0)])


def test_no_runs_are_an_error():
    with pytest.raises(ComparisonError, match="there is no finished run to compare"):
        Comparison([])
