"""A run that stops early: when, what is written, and that a resumed run stops at the same step."""

import json

import pytest

from tesserl_analysis.record import read_metrics
from tesserl_configs import load_config
from tesserl_trainer import train
from tesserl_trainer.cli import main
from tesserl_training.checkpoints.run_checkpoints import Checkpoints

from .test_resume import outcome

ALWAYS, NEVER = "early_stopping={return: -1000, evaluations: 2}", "early_stopping={return: 1000, evaluations: 1}"
"""Of a task whose evaluations are due at steps 60, 120, 180 and 240."""


@pytest.fixture
def config(write_config):
    return lambda *overrides: load_config(write_config(algorithm="ppo"), overrides)


def reached(run_dir) -> list[tuple[int, float]]:
    rows = read_metrics(run_dir / "metrics.csv")
    return [(step, value) for step, name, value, *_ in rows if name == "evaluation/reached"]


def test_a_run_stops_after_enough_evaluations_in_a_row_and_is_evaluated(config, tmp_path, capfd):
    run_dir = train(config(ALWAYS), run_dir=tmp_path / "run")
    assert Checkpoints(run_dir).load("latest").step == 120
    assert reached(run_dir) == [(60, 1), (120, 2)]
    assert json.loads((run_dir / "evaluation.json").read_text())["episodes"] == 3
    assert "stopping early at step 120: 2 evaluations in a row reached a return of -1000" in capfd.readouterr().err


def test_a_return_that_is_not_reached_stops_nothing(config, tmp_path):
    run_dir = train(config(NEVER), run_dir=tmp_path / "run")
    assert Checkpoints(run_dir).load("latest").step == 240
    assert reached(run_dir) == [(60, 0), (120, 0), (180, 0), (240, 0)]


def test_without_early_stopping_nothing_is_counted(config, tmp_path):
    assert reached(train(config(), run_dir=tmp_path / "run")) == []


def test_a_resumed_run_stops_where_the_uninterrupted_one_does(config, tmp_path):
    whole = outcome(train(config(ALWAYS), run_dir=tmp_path / "whole"))
    run_dir = train(config(ALWAYS, "total_steps=60"), run_dir=tmp_path / "halves")
    [(_, count), *_] = reached(run_dir)
    assert count == 1
    train(config(ALWAYS), run_dir=run_dir, resume=True)
    assert outcome(run_dir) == whole


def test_a_run_that_has_stopped_is_finished_until_the_condition_is_taken_away(config, tmp_path, capfd):
    run_dir = train(config(ALWAYS), run_dir=tmp_path / "run")
    capfd.readouterr()
    assert main(["train", "--resume", str(run_dir)]) == 0
    assert capfd.readouterr().err == f"already finished at step 120: {run_dir}\n"
    assert main(["train", "--resume", str(run_dir), "--set", "early_stopping=null"]) == 0
    assert Checkpoints(run_dir).load("latest").step == 240
    assert outcome(run_dir)["metrics"] != []
