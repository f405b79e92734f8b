"""Rounds without anything to learn from, and trajectories without an end."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from tensordict import TensorDict

from tesserl_configs import ConfigError, load_config
from tesserl_preference_data import cut_segments, make_pairs
from tesserl_ranks.shares import count_minibatches, minibatches
from tesserl_trainer import train
from tesserl_training.checkpoints.run_checkpoints import Checkpoints

from .test_on_policy import metrics_of


class Endless(gym.Env):
    """Never ends by itself; the reward is 1."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action):
        return np.zeros(3, np.float32), 1.0, False, False, {}


gym.register("tesserl-tests/Endless-v0", Endless)

TRUNCATED = """
grpo: {group_size: 4, num_groups: 2, num_minibatches: 3, max_length: 3, truncation: mask%s}
algorithm: grpo
total_steps: 72
environment: {id: CartPole-v1, num_envs: 4}
nn: {vector: {kind: mlp, hidden_sizes: [16]}}
evaluation: {interval: 72, episodes: 2, final_episodes: 2, max_episode_steps: 20}
logging: {tensorboard: false, interval: 24}
"""


@pytest.mark.parametrize("more", ["", ", loss: {kind: clip, importance_level: trajectory}", ", kl: {coef: 0.1}"])
def test_an_iteration_whose_trajectories_are_all_truncated_is_skipped_and_counted(tmp_path, more):
    (tmp_path / "run.yaml").write_text(TRUNCATED % more)
    run = train(load_config(tmp_path / "run.yaml"), run_dir=tmp_path / "run")
    metrics = metrics_of(run)
    assert metrics["train/skipped"] == [1, 2, 3]
    assert metrics["train/updates"] == [0, 0, 0]
    assert metrics["train/completions/clipped_ratio"] == [1, 1, 1]
    assert Checkpoints(run).latest() is not None


def test_the_count_of_skipped_rounds_continues(tmp_path):
    (tmp_path / "run.yaml").write_text(TRUNCATED % "")
    run = train(load_config(tmp_path / "run.yaml", ["total_steps=24"]), run_dir=tmp_path / "run")
    train(load_config(tmp_path / "run.yaml"), run_dir=run, resume=True)
    assert metrics_of(run)["train/skipped"][-1] == 3


@pytest.mark.parametrize(
    ("size", "number", "expected"), [(0, 4, []), (1, 4, [1]), (5, 4, [2, 2, 1]), (8, 4, [2, 2, 2, 2]), (3, 1, [3])]
)
def test_minibatches_are_as_many_as_are_counted(size, number, expected):
    parts = list(minibatches(TensorDict({"x": torch.arange(size)}, [size]), number))
    assert [len(part) for part in parts] == expected
    assert count_minibatches(size, number) == len(expected)


def test_fewer_pairs_than_asked_for_are_an_error_or_are_enough(monkeypatch):
    monkeypatch.setattr("tesserl_preference_data.make.MAX_ENUMERATED", 1)  # drawn, as of thousands of segments
    step = {"observation": torch.zeros(1, 3), "action": torch.zeros(1), "next": {"reward": torch.ones(1, 1)}}
    pool = cut_segments([TensorDict(step, [1]) for _ in range(6)])
    with pytest.raises(ValueError, match="5 pairs were asked for, 0 can be made of 6 segments"):
        make_pairs(pool, num_pairs=5)
    assert len(make_pairs(pool, num_pairs=5, allow_fewer=True)) == 0


ONLINE = """
algorithm: dpo
total_steps: 72
environment: {id: CartPole-v1, num_envs: 4, wrappers: [{kind: time_limit, max_episode_steps: 3}]}
pairs: {source: {kind: online, group_size: 4, num_groups: 2}}
nn: {vector: {kind: mlp, hidden_sizes: [16]}}
evaluation: {interval: 72, episodes: 2, final_episodes: 2, max_episode_steps: 20}
logging: {tensorboard: false, interval: 24}
"""


def test_online_pairs_that_all_tie_skip_the_iteration(tmp_path):
    (tmp_path / "run.yaml").write_text(ONLINE)
    metrics = metrics_of(train(load_config(tmp_path / "run.yaml"), run_dir=tmp_path / "run"))
    assert metrics["train/skipped"] == [1, 2, 3]
    assert metrics["train/pairs/made"] == [0, 0, 0]


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        (TRUNCATED.replace("max_length: 3, ", "") % "", "set grpo.max_length or environment.wrappers to"),
        (ONLINE.replace("wrappers: [{kind: time_limit, max_episode_steps: 3}]", ""), "set environment.wrappers to"),
    ],
    ids=["grpo", "dpo"],
)
def test_trajectories_of_a_task_without_an_end_are_refused_before_the_first_step(tmp_path, text, remedy):
    (tmp_path / "run.yaml").write_text(text)
    config = load_config(tmp_path / "run.yaml", ["environment.id=tesserl-tests/Endless-v0"])
    with pytest.raises(ConfigError, match=rf"environment.id: \S*Endless-v0 has no time limit, .*; {remedy}"):
        train(config, run_dir=tmp_path / "run")


@pytest.mark.parametrize(
    "limit",
    [
        "grpo.max_length=5",
        "environment.wrappers=[{kind: time_limit, max_episode_steps: 5}]",
        "environment.kwargs={max_episode_steps: 5}",
    ],
)
def test_a_limit_of_any_kind_is_one(tmp_path, limit):
    (tmp_path / "run.yaml").write_text(TRUNCATED.replace("max_length: 3, truncation: mask", "truncation: keep") % "")
    changes = ["environment.id=tesserl-tests/Endless-v0", limit]
    metrics = metrics_of(train(load_config(tmp_path / "run.yaml", changes), run_dir=tmp_path / "run"))
    assert metrics["train/completions/max_length"][-1] == 5
