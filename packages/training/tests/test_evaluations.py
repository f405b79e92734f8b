"""Evaluations: when they count, the best weights, stopping early."""

from types import SimpleNamespace

import pytest
import torch

from tesserl_collectors.evaluation import Evaluation
from tesserl_storage.errors import StorageError
from tesserl_training.checkpoints.names import checkpoint_name
from tesserl_training.checkpoints.run_checkpoints import Checkpoints
from tesserl_training.evaluations import EarlyStopping, Evaluations, reached_in


def test_evaluations_are_counted_in_a_row_and_a_nan_is_none():
    notes: list[str] = []
    log, progress = SimpleNamespace(log=lambda *_: None), SimpleNamespace(note=notes.append)
    early_stopping = EarlyStopping(475.0, 3)
    evaluations = Evaluations(None, None, log, progress, early_stopping)  # type: ignore[arg-type]
    counts = []
    for score in (500.0, 475.0, 474.9, 475.0, float("nan"), 480.0, 490.0):
        evaluations._count(5, 7, score)
        counts.append(evaluations.reached)
    assert counts == [1, 2, 0, 1, 0, 1, 2]
    assert (evaluations.stopped_early, notes) == (False, [])
    evaluations._count(5, 7, 475.0)
    assert evaluations.stopped_early
    assert notes == ["stopping early at step 7: 3 evaluations in a row reached a return of 475"]


def test_the_count_is_that_of_the_same_return():
    saved = {"early_stopping": {"target": 475.0, "reached": 2}}
    assert reached_in(saved, EarlyStopping(475.0, 3)) == 2
    assert reached_in(saved, EarlyStopping(400.0, 3)) == 0
    assert reached_in(saved, None) == reached_in({}, EarlyStopping(475.0, 3)) == 0
    with pytest.raises(StorageError, match=r"state: early_stopping\.reached: expected a whole number"):
        reached_in({"early_stopping": {"target": 475.0, "reached": -1}}, EarlyStopping(475.0, 3))


class Playing:
    """Stands in for a process; its results are the scores given, in their order."""

    in_background = True

    def __init__(self, *scores):
        self.scores, self.begun = list(scores), []

    def begin(self, weights=None):
        self.begun.append(weights)

    def result(self):
        return Evaluation([self.scores.pop(0)], [1])

    def look(self):
        pass

    def weights(self):
        return {"weight": torch.ones(1)}


@pytest.fixture
def evaluations(tmp_path):
    def make(*scores):
        notes, rows = [], []
        log = SimpleNamespace(log=lambda step, metrics: rows.append((step, *metrics)))
        progress = SimpleNamespace(note=notes.append, know=lambda **_: None)
        made = Evaluations(Playing(*scores), Checkpoints(tmp_path), log, progress)  # type: ignore[arg-type]
        return made, rows, notes

    (tmp_path / "checkpoints").mkdir()
    return make


def test_a_result_counts_before_the_next_evaluation_begins(evaluations, tmp_path):
    made, rows, notes = evaluations(1.0, 2.0, 1.5)
    saved = []

    def save(step):
        saved.append((step, made.pending, made.best and made.best["return_mean"]))
        (tmp_path / "checkpoints" / checkpoint_name(step)).mkdir()

    made.evaluate(10, lambda: save(10), is_last=False)
    assert (rows, made.pending, made.best) == ([], 10, None)
    assert made.state_dict(10)["evaluation"] == {"step": 10, "weights": None}
    assert made.state_dict(12)["evaluation"] == {"step": 10, "weights": {"weight": torch.ones(1)}}
    made.evaluate(20, lambda: save(20), is_last=False)
    assert [row[0] for row in rows] == [10]
    assert made.best == {"checkpoint": checkpoint_name(10), "return_mean": 1.0}
    made.evaluate(30, lambda: save(30), is_last=True)
    assert [row[0] for row in rows] == [10, 20, 30]
    assert made.best == {"checkpoint": checkpoint_name(20), "return_mean": 2.0}
    assert saved == [(10, 10, None), (20, 20, 1.0)]
    assert made.state_dict(30)["evaluation"] is None
    assert notes == []


def test_weights_whose_checkpoint_is_gone_are_not_the_best(evaluations):
    made, _, notes = evaluations(3.0)
    made.evaluate(10, lambda: None, is_last=False)
    made.settle(20)
    assert made.best is None
    assert notes == [f"warning: {checkpoint_name(10)}, of the best evaluation so far, is not there any more"]


def test_what_a_checkpoint_says_of_an_evaluation_is_checked(evaluations):
    made, _, _ = evaluations(3.0)
    saved = {"best": None, "evaluation": {"step": 20, "weights": None}}
    with pytest.raises(StorageError, match=r"state: evaluation\.step: expected a whole number from 0 to 10, got 20"):
        made.load(saved, 10)
    with pytest.raises(StorageError, match=r"state: evaluation\.weights: expected keys and values, got None"):
        made.load(saved, 30)
    made.load({"best": None}, 10)
    assert made.player.begun == []
    made.load(saved, 20)
    assert made.player.begun == [None]
