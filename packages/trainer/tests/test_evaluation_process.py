"""Runs that are evaluated in a process of their own: equal results, in a fixed order, whatever ends the run."""

import json
import multiprocessing
import os
import re

import pytest

from tesserl_analysis.record import read_metrics
from tesserl_collectors.evaluation_process import EvaluationProcess, evaluation_name
from tesserl_collectors.processes import ProcessTransport
from tesserl_collectors.supervisor import Supervisor
from tesserl_configs import load_config
from tesserl_environments import WorkerError
from tesserl_trainer import train
from tesserl_trainer.cli import main
from tesserl_training.checkpoints.run_checkpoints import Checkpoints

from . import troubled
from .test_early_stopping import ALWAYS, NEVER, reached
from .test_process_collectors import collectors, doomed
from .test_resume import LSTM, NOISY, PRIORITIZED, STATISTICS, outcome
from .test_stopping import PATIENCE, SIGNALS, ended, is_alive, place, processes_of, start, until  # noqa: F401

PROCESS = {"max_episode_steps: 50}": "max_episode_steps: 50, process: true}"}
MARK = "evaluation.process=false"


def sorted_outcome(run_dir):
    """Return the outcome of a run, its rows sorted by step: those of evaluations come later in the file."""
    found = outcome(run_dir)
    return {**found, "metrics": sorted(found["metrics"])}


CASES = [
    ("ppo", LSTM | STATISTICS),
    ("iqn", PRIORITIZED | NOISY | STATISTICS),
    ("grpo", {}),
    pytest.param("dpo", {}, marks=pytest.mark.soak),
    pytest.param("cpl", {}, marks=pytest.mark.soak),
]


@pytest.mark.parametrize(("algorithm", "changes"), CASES)
def test_results_are_those_of_evaluations_in_the_training_process(write_config, tmp_path, algorithm, changes):
    config = load_config(write_config(algorithm=algorithm, **changes | PROCESS))
    here = train(load_config(write_config(algorithm=algorithm, **changes | PROCESS), [MARK]), run_dir=tmp_path / "here")
    there = train(config, run_dir=tmp_path / "there")
    assert sorted_outcome(there) == sorted_outcome(here)
    assert [path.name for path in Checkpoints(there).paths()] == [path.name for path in Checkpoints(here).paths()]
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("algorithm", "changes"), CASES)
def test_a_resume_repeats_the_evaluation_in_flight(write_config, tmp_path, algorithm, changes):
    config = load_config(write_config(algorithm=algorithm, **changes | PROCESS))
    run_dir = train(config, run_dir=tmp_path / "run")
    whole, kept = outcome(run_dir), Checkpoints(run_dir).paths()[-2]
    pending = Checkpoints(run_dir).load(kept.name).state["evaluation"]
    assert pending["step"] <= int(kept.name[-9:])
    (run_dir / "evaluation.json").unlink()
    train(config, run_dir=run_dir, resume=kept.name)
    assert outcome(run_dir) == whole
    (run_dir / "evaluation.json").unlink()
    changed = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"process": False})})
    train(changed, run_dir=run_dir, resume=kept.name)  # the weights of the checkpoint are evaluated in this process
    assert sorted_outcome(run_dir) == {**whole, "metrics": sorted(whole["metrics"])}


def test_a_run_that_was_over_goes_on_as_if_it_had_been_longer(write_config, tmp_path):
    config = load_config(write_config(algorithm="ppo", **PROCESS))
    whole = sorted_outcome(train(config, run_dir=tmp_path / "whole"))
    run_dir = train(config.model_copy(update={"total_steps": 120}), run_dir=tmp_path / "run")
    train(config, run_dir=run_dir, resume=True)
    assert sorted_outcome(run_dir) == whole


def test_early_stopping_acts_when_the_next_evaluation_is_due(write_config, tmp_path, capfd):
    config = load_config(write_config(algorithm="ppo", **PROCESS), [ALWAYS])
    run_dir = train(config, run_dir=tmp_path / "run")
    assert Checkpoints(run_dir).load("latest").step == 180
    assert reached(run_dir) == [(60, 1), (120, 2)]
    assert "stopping early at step 180: 2 evaluations in a row" in capfd.readouterr().err
    assert Checkpoints(run_dir).best() is not None
    whole, kept = outcome(run_dir), Checkpoints(run_dir).paths()[-2]
    (run_dir / "evaluation.json").unlink()
    train(config, run_dir=run_dir, resume=kept.name)
    assert outcome(run_dir) == whole
    never = load_config(write_config(algorithm="ppo", **PROCESS), [NEVER])
    assert reached(train(never, run_dir=tmp_path / "never"))[-1] == (240, 0)  # the last one is waited for


def test_evaluations_and_collectors_can_both_have_processes(write_config, tmp_path):
    changes = PROCESS | collectors(1, 1)
    there = train(load_config(write_config(algorithm="ppo", **changes)), run_dir=tmp_path / "there")
    here = train(load_config(write_config(algorithm="ppo", **changes), [MARK]), run_dir=tmp_path / "here")
    assert sorted_outcome(there) == sorted_outcome(here)


def test_pretraining_is_evaluated_there_too(write_config, stores, tmp_path):
    config = write_config(algorithm="ppo", **PROCESS | {"num_steps: 10": "num_steps: 1000", "240": "3000"})
    arguments = ["pretrain", "bc", str(config), "--pairs", str(stores / "CartPole-v1"), "--updates", "60"]
    assert main([*arguments, "--run-dir", str(tmp_path / "there")]) == 0
    assert main([*arguments, "--run-dir", str(tmp_path / "here"), "--set", MARK]) == 0
    assert sorted_outcome(tmp_path / "there") == sorted_outcome(tmp_path / "here")


def test_a_killed_process_is_named_and_the_run_is_resumed_exactly(write_config, tmp_path, capfd):
    config, plan = doomed(write_config, tmp_path, "ppo", PROCESS, 1)
    local = ["--set", "collectors={kind: local}"]
    assert main(["train", str(config), *local, "--run-dir", str(tmp_path / "whole")]) == 0
    plan.write_text(json.dumps({"seed": 100, "step": 15, "kind": "kill"}))  # the first seed of evaluations
    run_dir = tmp_path / "run"
    assert main(["train", str(config), *local, "--run-dir", str(run_dir)]) == 1
    assert re.search(r"error: the evaluation process died \(exit code -9\)\n", capfd.readouterr().err)
    assert not multiprocessing.active_children()
    plan.unlink()
    assert main(["train", "--resume", str(run_dir)]) == 0
    assert outcome(run_dir) == outcome(tmp_path / "whole")


def test_a_process_that_dies_is_noticed_in_the_next_round(write_config, tmp_path, capfd, monkeypatch):
    config, plan = doomed(write_config, tmp_path, "ppo", PROCESS, 1)
    plan.write_text(json.dumps({"seed": 100, "step": 15, "kind": "kill"}))
    look = EvaluationProcess.look

    def look_when_it_is_dead(self):
        if self._version:  # the evaluation of step 60 has begun
            self._supervisor.transport._lines[0].process.join(PATIENCE)
        look(self)

    monkeypatch.setattr(EvaluationProcess, "look", look_when_it_is_dead)
    run_dir = tmp_path / "run"
    assert main(["train", str(config), "--set", "collectors={kind: local}", "--run-dir", str(run_dir)]) == 1
    assert re.search(r"error: the evaluation process died \(exit code -9\)\n", capfd.readouterr().err)
    assert max(row[0] for row in read_metrics(run_dir / "metrics.csv")) == 60  # its result is due at step 120


def test_an_error_of_the_task_is_raised_with_its_traceback(write_config, tmp_path, capfd):
    config, plan = doomed(write_config, tmp_path, "ppo", PROCESS, 1)
    plan.write_text(json.dumps({"seed": 100, "step": 1, "kind": "raise"}))
    run_dir = tmp_path / "run"
    assert main(["train", str(config), "--set", "collectors={kind: local}", "--run-dir", str(run_dir)]) == 1
    told = capfd.readouterr().err
    assert "error: the evaluation process: environment 0" in told
    assert "the task broke" in told


def test_a_process_that_hangs_is_named():
    transport = ProcessTransport(troubled.Answering, (WorkerError,), evaluation_name)
    supervisor = Supervisor(transport, 1, start_timeout=PATIENCE, worker_timeout=PATIENCE, name=evaluation_name)
    try:
        supervisor.start()
        supervisor.wait_until_ready()
        supervisor.ask(0, "fill", {"size": 1})
        supervisor.answers()  # the first answer has the time of the start
        supervisor.ask(0, "stop", {}, timeout=1.0)
        with pytest.raises(WorkerError, match=r"^the evaluation process made no step within 1 s; raise environment\."):
            supervisor.answers()
    finally:
        transport.close(0.0)


@pytest.mark.parametrize(
    ("number", "code"), [SIGNALS[0], *(pytest.param(*each, marks=pytest.mark.soak) for each in SIGNALS[1:])]
)
def test_a_signal_ends_an_evaluation_in_flight(write_config, place, number, code):  # noqa: F811
    log = place / "log"
    task = f"{{id: 'misbehaving:Misbehaving-v0', module_path: [{place}], num_envs: 3, kwargs: {{log: {log}}}}}"
    changes = PROCESS | {
        "{id: CartPole-v1, num_envs: 3}": task,
        "total_steps: 240": "total_steps: 1000000",
        "interval: 60, episodes: 2": "interval: 6000, episodes: 60000",  # it takes long
        "checkpoint: {interval: 40": "checkpoint: {interval: 1000000",
    }
    process = start(place, "train", write_config(algorithm="ppo", **changes), "--run-dir", "a run")
    until((place / "a run/checkpoints/latest.json").exists, process)  # it is written when the evaluation begins
    os.killpg(process.pid, number)
    told = ended(process)
    assert process.returncode == code
    assert told.endswith(f"stopped by {number.name}; continue with: tesserl train --resume 'a run'\n")
    assert Checkpoints(place / "a run").load("latest").state["evaluation"]["step"] == 6000
    (evaluating,) = processes_of(log) - {process.pid}
    assert f"{evaluating} close" in log.read_text().splitlines()  # it has closed its environments
    assert not any(map(is_alive, processes_of(log)))
