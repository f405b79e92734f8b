"""Runs whose environments are in other processes that raise, exit or sleep."""

import json
import multiprocessing
import re

import gymnasium as gym
import numpy as np
import pytest

from tesserl_trainer.cli import main
from tesserl_training.checkpoints.run_checkpoints import Checkpoints

from .troubled import Doomed

pytestmark = pytest.mark.kernel_free

PATIENCE = 300.0
"""Seconds; where nobody sleeps, tests shall not fail on a machine that is busy."""

KINDS = ["sleep", "exit", "kill", "raise"]

gym.register("Doomed-v0", entry_point=Doomed, max_episode_steps=500)


def doomed(write_config, tmp_path, kind, at):
    """A configuration of three workers, of which one gets into trouble at its step ``at``."""
    path = tmp_path / "plan.json"
    seeds = [int(child.generate_state(1)[0]) for child in np.random.SeedSequence(3).spawn(3)]
    path.write_text(json.dumps({"seed": seeds[kind != "sleep"], "step": at, "kind": kind}))
    timeout = 10 if kind == "sleep" else PATIENCE
    kwargs = f"kwargs: {{path: {path}}}, vectorization: async, worker_timeout: {timeout}"
    changes = {"{id: CartPole-v1, num_envs: 3}": f"{{id: Doomed-v0, num_envs: 3, {kwargs}}}"}
    return path, write_config(**changes)


def dies_and_is_resumed(write_config, tmp_path, capfd, kind, at):
    plan, config = doomed(write_config, tmp_path, kind, at)
    run_dir = tmp_path / "run"
    assert main(["train", str(config), "--run-dir", str(run_dir)]) == 1
    told = capfd.readouterr().err
    assert f"error: environment worker {int(kind != 'sleep')} " in told
    assert ("Unpicklable: the task broke" in told) == (kind == "raise")
    assert not multiprocessing.active_children()
    plan.unlink()
    assert main(["train", "--resume", str(run_dir)]) == 0, capfd.readouterr().err
    whole = tmp_path / "whole"
    patient = ["--set", f"environment.worker_timeout={PATIENCE}"]
    assert main(["train", str(config), "--run-dir", str(whole), *patient]) == 0
    outcomes = [json.loads((Checkpoints(path).latest() / "manifest.json").read_text()) for path in (run_dir, whole)]
    assert outcomes[0]["step"] == 240
    assert outcomes[0]["files"]["networks.safetensors"] == outcomes[1]["files"]["networks.safetensors"]


@pytest.mark.parametrize(("kind", "at"), [("raise", 31), ("exit", 47), ("sleep", 74)])
def test_a_run_whose_worker_fails_says_so_and_goes_on_once_the_cause_is_gone(write_config, tmp_path, capfd, kind, at):
    dies_and_is_resumed(write_config, tmp_path, capfd, kind, at)


@pytest.mark.parametrize(("algorithm", "at"), [("ppo", 72), ("grpo", 110), ("dpo", 72)])
def test_a_worker_that_dies_loses_nothing_in_any_loop(write_config, tmp_path, capfd, algorithm, at):
    plan = tmp_path / "plan.json"
    task = f"{{id: Doomed-v0, kwargs: {{path: {plan}}}, vectorization: async, num_envs: 3}}"
    config, run_dir, whole = write_config(algorithm=algorithm, **{"{id: CartPole-v1, num_envs: 3}": task}), "run", "all"
    plan.write_text(json.dumps({"seed": None, "step": at, "kind": "exit"}))
    assert main(["train", str(config), "--run-dir", str(tmp_path / run_dir)]) == 1
    assert re.search(r"error: environment worker \d died \(exit code 7\)", capfd.readouterr().err)
    assert not plan.exists()
    assert main(["train", "--resume", str(tmp_path / run_dir)]) == 0
    assert main(["train", str(config), "--run-dir", str(tmp_path / whole)]) == 0
    manifests = [Checkpoints(tmp_path / name).latest() / "manifest.json" for name in (run_dir, whole)]
    resumed, uninterrupted = (json.loads(manifest.read_text()) for manifest in manifests)
    assert resumed["step"] == uninterrupted["step"] >= 240
    assert resumed["files"]["networks.safetensors"] == uninterrupted["files"]["networks.safetensors"]


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_survives_trouble_at_any_step(write_config, tmp_path, capfd, kind):
    for index, at in enumerate(np.random.default_rng(KINDS.index(kind)).integers(14, 80, 8).tolist()):
        (tmp_path / str(index)).mkdir()
        dies_and_is_resumed(write_config, tmp_path / str(index), capfd, kind, at)
