"""Runs whose environments are stepped by collector workers, undisturbed, stopped, killed and resumed."""

import json
import multiprocessing
import os
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tesserl_analysis.record import read_metrics
from tesserl_configs import load_config
from tesserl_trainer import train
from tesserl_trainer.cli import main
from tesserl_training.checkpoints.run_checkpoints import Checkpoints

from . import troubled
from .test_resume import LSTM, NOISY, PRIORITIZED, SCALED, SPARSE, STATISTICS, halves_equal_the_whole, outcome
from .test_stopping import PATIENCE, SIGNALS, ended, is_alive, place, processes_of, start, until  # noqa: F401

PPO = LSTM | SCALED
IQN = PRIORITIZED | NOISY | SPARSE | STATISTICS


CASES = [
    ("ppo", PPO | STATISTICS),
    ("iqn", IQN),
    ("grpo", {}),
    pytest.param("dpo", {}, marks=pytest.mark.soak),
]


def collectors(delay: int, workers: int) -> dict[str, str]:
    block = f"collectors: {{kind: process, workers: {workers}, delay: {delay}}}"
    return {"name: tiny": f"name: tiny\n{block}"}


@pytest.mark.parametrize(("algorithm", "changes"), CASES)
def test_one_worker_without_delay_learns_what_a_run_in_one_process_learns(write_config, tmp_path, algorithm, changes):
    one = ["num_threads=1"]  # as a worker has
    local = learned(train(load_config(write_config(algorithm=algorithm, **changes), one), run_dir=tmp_path / "local"))
    config = load_config(write_config(algorithm=algorithm, **changes | collectors(0, 1)), one)
    assert learned(train(config, run_dir=tmp_path / "process")) == local
    assert not multiprocessing.active_children()


def learned(run_dir):
    """Return the part of an outcome that does not name workers."""
    whole = outcome(run_dir)
    files = {name: whole["files"][name] for name in ("networks.safetensors", "optimizer.safetensors")}
    return {name: whole[name] for name in ("metrics", "pointer", "evaluation", "step")} | {"files": files}


TELLING = """
import os, pathlib, sys
import gymnasium

class Telling(gymnasium.Wrapper):
    def __init__(self, path):
        super().__init__(gymnasium.make("CartPole-v1"))
        self.path = pathlib.Path(path) / str(os.getpid())

    def step(self, action):
        self.path.write_text(str("torchrl" in sys.modules))
        return self.env.step(action)

gymnasium.register("Telling-v0", Telling, max_episode_steps=99)
"""


def telling(tmp_path, num_envs: int) -> dict[str, str]:
    """A task with which every process that steps environments tells whether it has imported torchrl."""
    (tmp_path / "telling_task.py").write_text(TELLING)
    (tmp_path / "told").mkdir()
    task = f"id: 'telling_task:Telling-v0', module_path: [{tmp_path}], kwargs: {{path: {tmp_path / 'told'}}}"
    return {"{id: CartPole-v1, num_envs: 3}": f"{{{task}, num_envs: {num_envs}}}"}


def told_by_others(tmp_path) -> dict[str, str]:
    """Return the answers of the processes besides this one."""
    return {path.name: path.read_text() for path in (tmp_path / "told").iterdir() if path.name != str(os.getpid())}


@pytest.mark.parametrize("algorithm", ["iqn", "ppo", "grpo", "dpo"])
def test_processes_that_only_act_import_no_torchrl(write_config, tmp_path, algorithm):
    changes = collectors(1, 2) | telling(tmp_path, 6)
    changes |= {"max_episode_steps: 50}": "max_episode_steps: 50, process: true}"}  # one more process
    if algorithm in ("grpo", "dpo"):
        changes |= {"num_groups: 2" if algorithm == "grpo" else "num_groups: 1": "num_groups: 4"}
    train(load_config(write_config(algorithm=algorithm, **changes)), run_dir=tmp_path / "run")
    told = told_by_others(tmp_path)
    assert len(told) == 3
    assert set(told.values()) == {"False"}


def free(workers: int, max_lag: int) -> dict[str, str]:
    block = f"collectors: {{kind: process, workers: {workers}, mode: async, max_lag: {max_lag}}}"
    return {"name: tiny": f"name: tiny\n{block}", "num_envs: 3": "num_envs: 4"}


def test_free_workers_keep_count_and_a_run_is_continued(write_config, tmp_path):
    config = load_config(write_config(**IQN | free(2, max_lag=6)))
    run_dir = train(config, run_dir=tmp_path / "run")
    state = json.loads((Checkpoints(run_dir).latest() / "state.json").read_text())
    assert not state["exact"]
    assert state["events"] == []
    metrics = {name: value for _, name, value, _ in read_metrics(run_dir / "metrics.csv")}
    assert metrics["lag/max"] <= 6
    assert metrics["workers/restarts"] == metrics["workers/lost_steps"] == 0
    assert {"lag/mean", "limiter/learner_waits", "limiter/collectors_wait", "workers/refused_steps"} <= metrics.keys()
    assert state["counters"]["updates"] == pytest.approx(state["counters"]["step"] / 4 - 7, abs=11)  # within a chunk
    train(config.model_copy(update={"total_steps": 300}), run_dir=run_dir, resume=True)
    state = json.loads((Checkpoints(run_dir).latest() / "state.json").read_text())
    assert state["counters"]["step"] >= 300


def resumed_equals_the_whole(config, run_dir):
    """Train, go back to the checkpoint before the last one, and train again."""
    train(config, run_dir=run_dir)
    whole, kept = outcome(run_dir), Checkpoints(run_dir).paths()[-2]
    (run_dir / "evaluation.json").unlink()
    train(config, run_dir=run_dir, resume=kept.name)
    assert outcome(run_dir) == whole


@pytest.mark.parametrize(("algorithm", "changes"), [("iqn", IQN), ("grpo", STATISTICS)])
def test_a_run_with_a_round_in_flight_is_resumed_exactly(write_config, tmp_path, algorithm, changes):
    resumed_equals_the_whole(
        load_config(write_config(algorithm=algorithm, **changes | collectors(1, 1))), tmp_path / "run"
    )


@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    ("algorithm", "changes"),
    [
        ("ppo", PPO),
        ("ppo", STATISTICS),
        ("iqn", IQN),
        ("iqn", {}),
        ("grpo", {}),
        ("dpo", {}),
        ("cpl", {}),
    ],
)
def test_any_run_is_resumed_exactly(write_config, tmp_path, algorithm, changes, workers):
    config = load_config(write_config(algorithm=algorithm, **changes | collectors(1, workers)))
    resumed_equals_the_whole(config, tmp_path / "run")


@pytest.mark.soak
def test_a_run_that_was_over_goes_on_as_if_it_had_been_longer(write_config, tmp_path):
    halves_equal_the_whole(load_config(write_config(**IQN | collectors(1, 3))), tmp_path, 120)


def doomed(write_config, tmp_path, algorithm, changes, workers):
    """A configuration whose task kills the first worker that reaches the step of its plan; and the plan."""
    plan = tmp_path / "plan.json"
    module = "import gymnasium\nfrom troubled import Doomed\ngymnasium.register('DoomedCollector-v0', Doomed)\n"
    (tmp_path / "doomed_task.py").write_text(module)
    places = f"[{tmp_path}, {Path(troubled.__file__).parent}]"
    task = f"{{id: 'doomed_task:DoomedCollector-v0', module_path: {places}, kwargs: {{path: {plan}}}, num_envs: 6}}"
    changes = changes | collectors(1, workers) | {"{id: CartPole-v1, num_envs: 3}": task}
    return write_config(algorithm=algorithm, **changes), plan


def killed_and_resumed_equals_the_whole(write_config, tmp_path, capfd, algorithm, changes, workers, at):
    config, plan = doomed(write_config, tmp_path, algorithm, changes, workers)
    assert main(["train", str(config), "--run-dir", str(tmp_path / "whole")]) == 0
    plan.write_text(json.dumps({"seed": None, "step": at, "kind": "kill"}))
    run_dir = tmp_path / "run"
    assert main(["train", str(config), "--run-dir", str(run_dir)]) == 1
    assert re.search(r"error: collector worker \d died \(exit code -9\)\n", capfd.readouterr().err)
    assert not multiprocessing.active_children()
    assert not plan.exists()
    assert main(["train", "--resume", str(run_dir)]) == 0
    assert outcome(run_dir) == outcome(tmp_path / "whole")


def test_a_killed_worker_is_named_and_the_run_is_resumed_exactly(write_config, tmp_path, capfd):
    killed_and_resumed_equals_the_whole(write_config, tmp_path, capfd, "ppo", PPO, 2, at=23)


@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("algorithm", "changes"), [("ppo", LSTM), ("iqn", IQN), ("grpo", {})])
def test_a_worker_can_be_killed_at_any_step(write_config, tmp_path, capfd, algorithm, changes, workers):
    for index, at in enumerate(np.random.default_rng(workers).integers(16, 38, 3).tolist()):
        (tmp_path / str(index)).mkdir()
        killed_and_resumed_equals_the_whole(write_config, tmp_path / str(index), capfd, algorithm, changes, workers, at)


@pytest.mark.parametrize(
    ("number", "code"), [SIGNALS[1], *(pytest.param(*each, marks=pytest.mark.soak) for each in SIGNALS[::2])]
)
def test_a_signal_to_the_group_leaves_a_checkpoint_and_nothing_else(write_config, place, number, code):  # noqa: F811
    log = place / "log"
    task = f"{{id: 'misbehaving:Misbehaving-v0', module_path: [{place}], num_envs: 6, kwargs: {{log: {log}}}}}"
    changes = {"{id: CartPole-v1, num_envs: 3}": task, "total_steps: 240": "total_steps: 1000000"}
    config = write_config(algorithm="ppo", **changes | collectors(1, 2))
    process = start(place, "train", config, "--run-dir", "a run")
    until((place / "a run/checkpoints/latest.json").exists, process)
    if sys.platform == "linux":
        maps = (line for pid in processes_of(log) for line in Path(f"/proc/{pid}/maps").read_text().splitlines())
        shared = [line for line in maps if "/dev/shm/" in line]
        assert len(shared) >= 3
        assert all(line.endswith("(deleted)") for line in shared)  # it has no name that could be left behind
    os.killpg(process.pid, number)
    told = ended(process)
    assert process.returncode == code
    assert told.endswith(f"stopped by {number.name}; continue with: tesserl train --resume 'a run'\n")
    assert Checkpoints(place / "a run").latest() is not None
    assert len(processes_of(log)) == 3
    assert not any(map(is_alive, processes_of(log)))


def test_workers_end_when_the_learner_is_killed(write_config, place):  # noqa: F811
    log = place / "log"
    task = f"{{id: 'misbehaving:Misbehaving-v0', module_path: [{place}], num_envs: 6, kwargs: {{log: {log}}}}}"
    changes = {"{id: CartPole-v1, num_envs: 3}": task, "total_steps: 240": "total_steps: 1000000"}
    process = start(place, "train", write_config(algorithm="ppo", **changes | collectors(1, 1)), "--run-dir", "run")
    until((place / "run/checkpoints/latest.json").exists, process)
    workers = processes_of(log) - {process.pid}
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while any(map(is_alive, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("algorithm", ["grpo", pytest.param("dpo", marks=pytest.mark.soak)])
def test_groups_do_not_depend_on_who_plays_them(write_config, tmp_path, algorithm):
    outcomes = []
    for workers in (1, 2, 5):
        changes = collectors(1, workers) | {"num_envs: 3": "num_envs: 10"} | STATISTICS
        config = load_config(write_config(algorithm=algorithm, **changes))
        outcomes.append(learned(train(config, run_dir=tmp_path / str(workers))))
    assert outcomes[0] == outcomes[1] == outcomes[2]
