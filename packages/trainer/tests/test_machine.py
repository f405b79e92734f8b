"""Errors about what a machine lacks name the key that needs it."""

import sys

import gymnasium as gym
import numpy as np
import pytest
import torch

from tesserl_configs import ConfigError, load_config
from tesserl_trainer import train
from tesserl_trainer.algorithms.environments import make_environments
from tesserl_trainer.cli import main
from tesserl_trainer.machine import naming_memory, refuse_missing

pytestmark = pytest.mark.kernel_free

SHORTAGES = {
    "cpu": lambda: torch.empty(2**60, dtype=torch.uint8),
    "numpy": lambda: np.zeros(2**60, np.uint8),
    "python": lambda: bytearray(2**62),
}
KEYS = {
    "iqn": "environment.num_envs, nn, replay.capacity, iqn.batch_size",
    "ppo": "environment.num_envs, nn, ppo.num_steps, ppo.num_minibatches",
    "grpo": "environment.num_envs, nn, grpo.num_groups, grpo.group_size",
    "dpo": "environment.num_envs, nn, dpo.batch_size, pairs.source",
    "cpl": "environment.num_envs, nn, cpl.batch_size, pairs.source",
}


@pytest.mark.parametrize("shortage", SHORTAGES)
@pytest.mark.parametrize("algorithm", KEYS)
def test_a_lack_of_memory_names_the_keys_that_decide_it(write_config, algorithm, shortage):
    config = load_config(write_config(algorithm=algorithm))
    message = rf"does not fit into memory \(.*\); lower what takes it: {KEYS[algorithm]}$"
    with pytest.raises(ConfigError, match=message), naming_memory(config):
        SHORTAGES[shortage]()


def test_another_error_passes_as_it_is(write_config):
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), naming_memory(load_config(write_config())):
        raise RuntimeError("shapes differ")


def test_a_run_that_does_not_fit_is_one_sentence(write_config, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("tesserl_trainer.running.run_to_end.seed_generators", lambda seed: None)
    monkeypatch.setattr("tesserl_trainer.running.run_to_end.Task", lambda config, **_: SHORTAGES["cpu"]())
    assert main(["train", str(write_config()), "--run-dir", str(tmp_path / "run")]) == 2
    error = capfd.readouterr().err
    assert "error: the run does not fit into memory (" in error
    assert "Traceback" not in error


def test_workers_on_a_cluster_without_ray_are_one_sentence(write_config, tmp_path, monkeypatch):
    for name in ("ray_cluster", "ray_transport"):
        monkeypatch.delitem(sys.modules, f"tesserl_collectors.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    block = {"name: tiny": "name: tiny\ncollectors: {kind: ray, workers: 3}"}
    config = load_config(write_config(algorithm="grpo", **block))
    message = r'^collectors.kind: needs Ray, which is not installed; install "tesserl-trainer\[ray\]"$'
    with pytest.raises(ConfigError, match=message):
        refuse_missing(config)
    with pytest.raises(ConfigError, match=message):
        train(config, run_dir=tmp_path / "run")


class Picky(gym.Env):
    """Cannot be made with more than 3 things."""

    def __init__(self, things: int = 4) -> None:
        if things > 3:
            raise ValueError(f"{things} things are too many")
        raise KeyError("nothing")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "environment.id: Picky-v0 cannot be made with {}: ValueError: 4 things are too many"),
        ({"things": 9}, "environment.kwargs: Picky-v0 cannot be made with {'things': 9}: ValueError: 9 things are too"),
        ({"things": 1}, "environment.kwargs: Picky-v0 cannot be made with {'things': 1}: KeyError: 'nothing'"),
    ],
)
def test_a_task_that_cannot_be_made_is_named_with_what_it_says(write_config, monkeypatch, kwargs, message):
    monkeypatch.setitem(gym.registry, "Picky-v0", gym.envs.registration.EnvSpec("Picky-v0", entry_point=Picky))
    config = load_config(write_config(), [f"environment.kwargs={kwargs}"]).environment
    with pytest.raises(ConfigError) as caught:
        make_environments(config.model_copy(update={"id": "Picky-v0"}), 1)
    assert str(caught.value).startswith(message)


def test_a_run_without_tensorboard_and_matplotlib(write_config, tmp_path, monkeypatch, capfd):
    for name in [name for name in sys.modules if name.endswith("training.event_file")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("tensorboard", "matplotlib"):
        monkeypatch.setitem(sys.modules, name, None)
    config = str(write_config())
    assert main(["train", config, "--set", "logging.tensorboard=true", "--run-dir", str(tmp_path / "first")]) == 2
    assert "logging.tensorboard: needs TensorBoard, which is not installed" in capfd.readouterr().err
    arguments = ["--set", "logging.tensorboard=false", "--run-dir", str(tmp_path / "run")]
    assert main(["train", config, *arguments]) == 0
    assert 'no curve.png: plots need Matplotlib, which is not installed; install "tesserl-analysis[plots]"' in (
        "".join(capfd.readouterr())
    )
    for command in (["report", str(tmp_path / "run")], ["observe", config, "--out", str(tmp_path / "seen.png")]):
        assert main(command) != 0
        assert "error: plots need Matplotlib" in capfd.readouterr().err
