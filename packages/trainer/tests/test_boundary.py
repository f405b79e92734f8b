"""Wrong returns of a task, in every kind of vector environment: shapes, types, NaN, errors."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from tesserl_collectors.collector import Collector
from tesserl_collectors.evaluation import evaluate_policy
from tesserl_configs import ConfigError
from tesserl_configs.environment import EnvironmentConfig
from tesserl_environments import Boundary, ObservationLayout, TaskError, WorkerError, closed_afterwards
from tesserl_trainer.algorithms.environments import make_environments, task_spaces
from tesserl_trainer.cli import main

from .misbehaving import GOOD

WRONG_STEPS = {
    "narrow": r"step\(\) returned an observation that is not of its space: "
    r"expected an array of shape \(2,\), got \(1,\); correct the task or its observation_space",
    "wide reward": r"step\(\) must return a reward that is a number, got an array of shape \(1,\)",
}


def zeros(*inputs):
    return torch.zeros(len(inputs[0]), dtype=torch.int64)


def make(wrong, num_envs=2, vectorization="sync", **options):
    config = EnvironmentConfig(
        id="Misbehaving-v0", num_envs=num_envs, vectorization=vectorization, kwargs={"wrong": wrong}, worker_timeout=300
    )
    return make_environments(config, num_envs, **options)


def collector_of(environments):
    return Collector(environments, ObservationLayout(environments.single_observation_space), zeros, seeds=[1, 2])


# --- vector environments ------------- ------------------------------------------------------------------------------


@pytest.mark.parametrize(("wrong", "vectorization"), [("narrow", "sync"), ("wide reward", "sync"), ("narrow", "async")])
def test_workers_refuse_what_this_process_refuses(wrong, vectorization):
    worker = " worker" if vectorization == "async" else ""
    message = rf"^environment{worker} 0 of Misbehaving-v0: {WRONG_STEPS[wrong]}"
    made = make(wrong, vectorization=vectorization)
    with closed_afterwards(made) as environments, pytest.raises((TaskError, WorkerError), match=message):
        collector_of(environments).collect(8)


class Native(VectorEnv):
    """Three environments with arrays of their own; every second step ends all episodes."""

    def __init__(self, mode=AutoresetMode.NEXT_STEP, **changes):
        self.metadata, self.num_envs, self.changes, self.t = {"autoreset_mode": mode}, 3, changes, 0
        self.single_observation_space = spaces.Box(-1, 1, (2,), np.float32)
        self.single_action_space = spaces.Discrete(2)
        self.observation_space = batch_space(self.single_observation_space, 3)
        self.action_space = batch_space(self.single_action_space, 3)

    def reset(self, *, seed=None, options=None):
        return np.tile(GOOD, (3, 1)), {}

    def step(self, actions):
        self.t += 1
        ends = np.full(3, self.t % 2 == 0)
        result = {
            "observation": np.tile(GOOD, (3, 1)),
            "reward": np.ones(3),
            "terminated": ends,
            "truncated": np.zeros(3, np.bool_),
            "info": {"final_obs": np.tile(GOOD, (3, 1))} if ends.any() else {},
        }
        return tuple((result | self.changes).values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"observation": np.tile(GOOD[:1], (3, 1))},
            r"observation space: expected an array of shape \(3, 2\), got \(3, 1\)",
        ),
        ({"observation": GOOD}, r"observation space: expected an array of shape \(2, 2\), got \(2,\)"),
        ({"reward": np.ones((3, 1))}, r"rewards must be 3 numbers, got an array of shape \(3, 1\) and type float64"),
        ({"reward": 1.0}, r"rewards must be 3 numbers, got an array of shape \(\) and type float64"),
        ({"terminated": np.zeros(3)}, r"terminated must be 3 booleans, got an array of shape \(3,\) and type float64"),
        ({"truncated": np.zeros(1, bool)}, r"truncated must be 3 booleans, got an array of shape \(1,\)"),
        (
            {"reward": np.array([1.0, 1.0, np.nan])},
            "environment 2 of Native returned a reward that is not finite: nan;",
        ),
    ],
)
def test_native_vector_environments_are_checked(changes, message):
    with pytest.raises(TaskError, match=f"Native.*{message}|{message}"):
        collector_of(Native(**changes)).collect(4)


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({}, "autoreset mode SAME_STEP, and info has no final_obs"),
        ({"final_obs": np.tile(GOOD[:1], (3, 1))}, r"expected an array of shape \(1, 2\), got \(1, 1\)"),
        ({"final_obs": np.full((3, 2), np.nan)}, "environment 0 of Native returned an observation .* not finite: nan"),
    ],
)
def test_final_observations_are_checked(info, message):
    with pytest.raises(TaskError, match=message):
        collector_of(Native(AutoresetMode.SAME_STEP, info=info)).collect(4)


def test_arrays_of_another_library_are_read():
    environments = Native(reward=[1, 2, 3], terminated=torch.tensor([False, False, True]))
    batch = collector_of(environments).collect(1)
    assert batch["next", "reward"].flatten().tolist() == [1, 2, 3]
    assert batch["next", "terminated"].flatten().tolist() == [False, False, True]


# --- NaN ----------------------------------------------------------------------------------------------------------

NOT_FINITE = {
    "nan": r"returned an observation \(observation\) that is not finite: nan at position 0; correct the task",
    "infinite": r"returned an observation \(observation\) that is not finite: inf at position 1; correct the task",
    "nan reward": "returned a reward that is not finite: nan; correct the task",
    "huge reward": "returned a reward that is not finite: inf; correct the task",
}


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("wrong", list(NOT_FINITE))
@pytest.mark.parametrize("steps", [1, 8])
def test_numbers_that_are_not_finite_as_float32_are_the_tasks(wrong, steps):
    with closed_afterwards(make(None)) as environments:
        environments.envs[1].unwrapped.wrong = wrong
        collector = collector_of(environments)
        for _ in range(6 // steps):
            collector.collect(steps)
        with pytest.raises(TaskError, match=rf"^environment 1 of Misbehaving-v0 {NOT_FINITE[wrong]}"):
            collector.collect(steps)


def test_a_policy_that_fails_on_nan_does_not_hide_the_task():
    def picky(observation):
        return torch.distributions.Categorical(logits=observation).sample()

    with closed_afterwards(make("nan")) as environments:
        layout = ObservationLayout(environments.single_observation_space)
        with pytest.raises(TaskError, match=NOT_FINITE["nan"]):
            Collector(environments, layout, picky).collect(20)


@pytest.mark.parametrize("wrong", ["nan", "infinite", "nan reward"])
def test_evaluation_reports_them_too(wrong):
    with closed_afterwards(make(wrong, num_envs=1, evaluation=True)) as environments:
        layout = ObservationLayout(environments.single_observation_space)
        with pytest.raises(TaskError, match=rf"^environment 0 of Misbehaving-v0 {NOT_FINITE[wrong]}"):
            evaluate_policy(zeros, environments, layout, [1, 2], max_episode_steps=9)


def test_large_numbers_are_finite():
    boundary = Boundary(Native(), ObservationLayout(Native().single_observation_space))
    boundary.require_finite({"observation": np.full((3, 2), 3e38, np.float32)}, np.full(3, -3e38))


@pytest.mark.parametrize("algorithm", ["iqn", "ppo", "grpo"])
@pytest.mark.parametrize("wrong", ["nan", "nan reward", "raise in step"])
def test_a_run_says_that_the_task_is_at_fault(write_config, tmp_path, capfd, algorithm, wrong):
    changes = {
        "{id: CartPole-v1, num_envs: 3}": f"{{id: Misbehaving-v0, num_envs: 3, kwargs: {{wrong: {wrong}, at: 40}}}}",
        "interval: 60, episodes": "interval: 1000, episodes",
    }
    path = write_config(algorithm=algorithm, **changes)
    assert main(["train", str(path), "--run-dir", str(tmp_path / "run")]) == 1
    told = capfd.readouterr().err
    assert "error: environment 0 of Misbehaving-v0 " in told
    assert NOT_FINITE.get(wrong, "the task broke").split(";")[0].replace("\\", "") in told
    assert "learning_rate" not in told


# --- making them --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_task_that_cannot_be_made_is_named_in_workers_too(vectorization):
    message = r"^environment\.kwargs: Misbehaving-v0 cannot be made with .*: LookupError: the task broke$"
    with pytest.raises(ConfigError, match=message):
        make("raise in make", vectorization=vectorization)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_mistakes_of_the_configuration_name_its_key_in_workers_too(write_config, vectorization):
    block = {"id": "CartPole-v1", "vectorization": vectorization, "kwargs": {"no_such": 1}}
    with pytest.raises(ValueError, match=r"environment\.kwargs: CartPole-v1 does not take \{'no_such': 1\}"):
        make_environments(EnvironmentConfig(**block), 2)
    with pytest.raises(ValueError, match=r"environment\.kwargs: CartPole-v1 does not take \{'no_such': 1\}"):
        task_spaces(EnvironmentConfig(**block))


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_the_spaces_of_a_task_are_those_of_its_environments(vectorization):
    config = EnvironmentConfig(id="LunarLander-v3", vectorization=vectorization)
    assert task_spaces(config) == (gym.make("LunarLander-v3").observation_space, spaces.Discrete(4))
