"""Evaluation: one episode for each seed, whatever the number of environments."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from tesserl_collectors.evaluation import Evaluation, evaluate_policy
from tesserl_environments import ObservationLayout


class Lottery(gym.Env):
    """Lasts as many steps as the seed's last digit (at least one); the reward of a step is its seed."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,))
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.t = seed, 0
        return np.array([seed, 0], np.float32), {}

    def step(self, action):
        self.t += 1
        done = self.t >= max(self.seed % 10, 1)
        return (
            np.array([self.seed, self.t], np.float32),
            float(self.seed),
            done and action == 0,
            done and action == 1,
            {},
        )


def evaluate(num_envs, seeds, **options):
    environments = SyncVectorEnv([Lottery] * num_envs, autoreset_mode=AutoresetMode.DISABLED)
    layout = ObservationLayout(environments.single_observation_space)
    options = {"max_episode_steps": 100, **options}
    return evaluate_policy(lambda x: (x[:, 0] % 2).long(), environments, layout, seeds, **options)


@pytest.mark.parametrize("num_envs", [1, 3, 8])
def test_results_stand_in_the_order_of_the_seeds(num_envs):
    seeds = [12, 25, 13, 41, 39]
    result = evaluate(num_envs, seeds)
    assert result.lengths == [2, 5, 3, 1, 9]
    assert result.returns == [24.0, 125.0, 39.0, 41.0, 351.0]


def test_an_episode_that_never_ends_is_cut():
    result = evaluate(2, [9, 3, 8], max_episode_steps=4)
    assert result.lengths == [4, 3, 4]
    assert result.returns == [36.0, 9.0, 32.0]


def test_mean_and_spread_are_over_the_episodes():
    result = Evaluation([1.0, 3.0, 8.0], [1, 1, 1])
    assert result.return_mean == 4.0
    assert result.return_std == pytest.approx((26 / 3) ** 0.5)


def test_evaluation_draws_no_number_of_training():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    evaluate(2, [3, 4])
    assert torch.equal(torch.rand(3), expected)


def test_environments_that_reset_themselves_are_refused():
    environments = SyncVectorEnv([Lottery], autoreset_mode=AutoresetMode.SAME_STEP)
    layout = ObservationLayout(environments.single_observation_space)
    with pytest.raises(ValueError, match="expected autoreset mode DISABLED, got SameStep"):
        evaluate_policy(lambda x: x, environments, layout, [1], max_episode_steps=5)
