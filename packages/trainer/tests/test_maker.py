"""Runs from Python whose environments a function makes."""

import functools
import threading

import gymnasium as gym
import pytest

from tesserl_configs import ConfigError, load_config
from tesserl_trainer import evaluate, train
from tesserl_trainer.cli import main

from .corridor import make_corridor
from .test_resume import outcome

pytestmark = pytest.mark.kernel_free


@pytest.fixture
def config(write_config):
    def load(**changes):
        return load_config(write_config(algorithm="ppo", **{"CartPole-v1": "Corridor-v0"} | changes))

    yield load
    gym.registry.pop("python/Corridor-v0", None)


def test_a_function_makes_the_environments_of_a_run_and_its_resume(config, tmp_path):
    config, maker = config(**{"num_envs: 3": "num_envs: 3, kwargs: {length: 4}"}), lambda length: make_corridor(length)
    whole = outcome(train(config, run_dir=tmp_path / "whole", environment=maker))
    assert set(whole["evaluation"]["lengths"]) <= {4, 6, 8, 9}
    halves = train(config.model_copy(update={"total_steps": 120}), run_dir=tmp_path / "halves", environment=maker)
    assert outcome(train(config, run_dir=halves, resume=True, environment=maker)) == whole
    assert load_config(halves / "config.yaml").environment.id == "python/Corridor-v0"


@pytest.mark.parametrize(
    "changes",
    [
        {"num_envs: 3": "num_envs: 2, vectorization: async", "num_minibatches: 3": "num_minibatches: 2"},
        {"algorithm: ppo": "collectors: {kind: process}\nalgorithm: ppo"},
        {"max_episode_steps: 50}": "max_episode_steps: 50, process: true}"},
    ],
    ids=["async", "collectors", "evaluation"],
)
def test_worker_processes_get_the_function(config, tmp_path, changes):
    few = {"interval: 60, episodes: 2, final_episodes: 3": "interval: 60, episodes: 1, final_episodes: 1"}
    config = config(**changes | few).model_copy(update={"total_steps": 60})
    assert (train(config, run_dir=tmp_path / "run", environment=make_corridor) / "evaluation.json").exists()


def test_another_process_is_told_to_go_on_from_python(config, tmp_path, capfd):
    run = train(config(), run_dir=tmp_path / "run", environment=make_corridor)
    again = evaluate(run, episodes=2)  # this process knows the function
    del gym.registry["python/Corridor-v0"]  # as in another process
    for command in (["train", "--resume", str(run), "--set", "total_steps=300"], ["eval", str(run)]):
        assert main(command) == 2
        said = "environment.id: python/Corridor-v0 is made by a function of a Python program, which this process does"
        assert said in capfd.readouterr().err
    assert evaluate(run, episodes=2, environment=make_corridor) == again


@pytest.mark.parametrize(
    "changes",
    [
        {"num_envs: 3": "num_envs: 3, vectorization: async"},
        {"algorithm: ppo": "collectors: {kind: process}\nalgorithm: ppo"},
        {"max_episode_steps: 50}": "max_episode_steps: 50, process: true}"},
    ],
)
def test_a_function_for_worker_processes_must_be_picklable(config, tmp_path, changes):
    maker = functools.partial(make_corridor, threading.Lock())
    with pytest.raises(
        ConfigError, match=r"environment: the function .* must be picklable, .* got TypeError: cannot pi"
    ):
        train(config(**changes), run_dir=tmp_path / "run", environment=maker)
    assert not (tmp_path / "run").exists()


def test_a_function_makes_single_environments(config, tmp_path):
    changed = config(**{"num_envs: 3": "num_envs: 3, vectorization: vector_entry_point"})
    with pytest.raises(ConfigError, match="a function makes single environments, got vector_entry_point; choose sync"):
        train(changed, run_dir=tmp_path / "run", environment=make_corridor)
