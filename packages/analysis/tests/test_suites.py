"""Recorded runs: what is shipped is whole, and what a user wrote is read or refused."""

import csv
from pathlib import Path

import pytest

from tesserl_analysis import Comparison, ComparisonError, published_table, read_suite, suite_names
from tesserl_analysis.suites import COLUMNS, CURVES, PUBLISHED, RECORDED, RUNS


@pytest.fixture
def suite(tmp_path) -> Path:
    """Two runs of one task, and one published return."""
    directory = tmp_path / "own"
    directory.mkdir()
    (directory / RUNS).write_text(f"{','.join(COLUMNS[RUNS])}\nA-v0,ppo,1,10,9,abc,train\nA-v0,ppo,2,14,13,abc,train\n")
    curves = "A-v0,ppo,1,100,1\nA-v0,ppo,1,200,10\nA-v0,ppo,2,100,2\nA-v0,ppo,2,200,14\n"
    (directory / CURVES).write_text(f"{','.join(COLUMNS[CURVES])}\n{curves}")
    (directory / PUBLISHED).write_text(f"{','.join(COLUMNS[PUBLISHED])}\nA-v0,DQN,11.5,1000,a paper,greedy\n")
    return directory


def test_scores_and_curves_of_the_runs_are_read(suite):
    first, second = read_suite(suite).runs
    assert (first.variant, first.task, first.seed, first.score) == ("ppo (own)", "A-v0", 1, 10.0)
    assert second.curve == ([100, 200], [2.0, 14.0])
    assert [run.score for run in read_suite(suite, last=True).runs] == [9.0, 13.0]


def test_published_returns_are_a_table(suite):
    table = published_table(read_suite(suite).published)
    assert table.rows == [["A-v0", "DQN", "11.5", "1,000", "a paper", "greedy"]]


def test_only_what_there_is_of_the_tasks_is_kept(suite):
    assert len(read_suite(suite).of(["A-v0", "B-v0"]).runs) == 2
    with pytest.raises(ComparisonError, match="own has runs of A-v0, got runs of B-v0"):
        read_suite(suite).of(["B-v0"])


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (RUNS, "abc", "1,2", "runs.csv:2: expected 7 values"),
        (RUNS, "score", "return", "expected the columns task, variant, seed, score, last_score"),
        (RUNS, ",10,", ",ten,", "runs.csv:2: score: expected a number, got 'ten'"),
        (CURVES, "1,200,10", "1,200", "curves.csv:3: expected 5 values"),
        (PUBLISHED, "1000", "1M", "published.csv:2: steps: expected a number, got '1M'"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(suite, file, old, new, message):
    text = (suite / file).read_text()
    assert old in text
    (suite / file).write_text(text.replace(old, new, 1))
    with pytest.raises(ComparisonError, match=message):
        read_suite(suite)


def test_an_unknown_suite_is_refused(tmp_path):
    with pytest.raises(ComparisonError, match="--with minatr: no such suite; did you mean minatar"):
        read_suite("minatr")
    with pytest.raises(ComparisonError, match=r"expected runs\.csv in it; these suites have names: .*minatar"):
        read_suite(tmp_path)


@pytest.mark.parametrize("name", suite_names())
def test_a_shipped_suite_is_whole(name):
    suite = read_suite(name)
    for run in suite.runs:
        steps, _ = run.curve
        assert len(steps) > 1, f"{run.variant} on {run.task}, seed {run.seed} has no curve"
        assert list(steps) == sorted(set(steps))
    with (RECORDED / name / RUNS).open() as lines:
        for row in csv.DictReader(lines):
            assert row["commit"], row
            assert row["command"].startswith("tesserl "), row
    Comparison(suite.runs)  # refuses two runs of one seed
