"""Rewards in units of the spread of the return."""

import gymnasium as gym
import numpy as np
import torch

from tesserl_training.reward_scaling import RewardScaler

DISCOUNT = 0.9


def test_scaled_rewards_are_gymnasiums():
    class Rewarding(gym.Env):
        observation_space, action_space = gym.spaces.Box(-1, 1, (1,)), gym.spaces.Discrete(2)

        def __init__(self, rewards):
            self.rewards = list(rewards)

        def reset(self, *, seed=None, options=None):
            return np.zeros(1, np.float32), {}

        def step(self, action):
            return np.zeros(1, np.float32), self.rewards.pop(0), False, False, {}

    rewards = np.random.default_rng(1).normal(3.0, 2.0, 4_000)
    environment = gym.wrappers.NormalizeReward(Rewarding(rewards), gamma=DISCOUNT, epsilon=1e-8)
    environment.reset()
    theirs = np.array([environment.step(0)[1] for _ in range(4_000)], np.float32)
    scaler = RewardScaler(DISCOUNT)
    done = torch.zeros(1, 500, dtype=torch.bool)
    ours = [scaler(torch.tensor(part, dtype=torch.float32)[None], done)[0] for part in rewards.reshape(8, 500)]
    torch.testing.assert_close(ours[-1], torch.from_numpy(theirs[-500:]), rtol=0.02, atol=1e-3)


def test_scaling_forgets_the_running_return_at_the_end_of_an_episode_and_clips():
    scaler = RewardScaler(1.0, clip=1.5)
    reward, done = torch.tensor([[1.0, 1.0, 5.0, 1.0]]), torch.tensor([[False, True, True, False]])
    scaled = scaler(reward, done)
    std = torch.tensor([1.0, 2.0, 5.0, 1.0]).std(correction=0)
    torch.testing.assert_close(scaled, (reward / std).clamp(-1.5, 1.5))
    assert scaler.state_dict()["running"].tolist() == [1.0]


def test_scaling_sums_rewards_of_long_episodes_without_losing_any():
    scaler = RewardScaler(1.0)
    old = {"mean": torch.zeros(1), "variance": torch.ones(1), "count": torch.tensor(0)}
    scaler.load_state_dict({"statistics": old, "running": torch.tensor([2.0**24])})  # of float32, as 0.1 wrote them
    reward = torch.ones(1, 3)
    scaled = scaler(reward, torch.zeros(1, 3, dtype=torch.bool))
    assert scaled.dtype == torch.float32
    assert scaler.state_dict()["running"].tolist() == [2.0**24 + 3]
    variance = scaler.state_dict()["statistics"]["variance"]
    torch.testing.assert_close(variance, torch.tensor([2 / 3], dtype=torch.float64))  # of 1, 2, 3 beyond 2^24
