"""Continuous actions on their way to the environment."""

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from tesserl_collectors import Collector, evaluate_policy
from tesserl_environments import ObservationLayout


class Steered(gym.Env):
    """Continuous actions; the reward is the sum of what arrived, an episode lasts three steps."""

    observation_space = spaces.Box(-1, 1, (1,))
    action_space = spaces.Box(np.array([-1, 0], np.float32), np.array([1, np.inf], np.float32))

    def reset(self, *, seed=None, options=None):
        self.t, self.arrived = 0, []
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        self.arrived.append(action.tolist())
        return np.zeros(1, np.float32), float(action.sum()), False, self.t == 3, {}


def test_the_environment_gets_clipped_actions_and_the_batch_keeps_raw_ones():
    environments = SyncVectorEnv([Steered] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    raw = torch.tensor([[-3.0, 5.0], [0.5, -0.25]])
    collector = Collector(environments, ObservationLayout(Steered.observation_space), lambda observation: raw)
    batch = collector.collect(2)
    assert [environment.arrived for environment in environments.envs] == [[[-1, 5]] * 2, [[0.5, 0]] * 2]
    assert torch.equal(batch["action"], raw[:, None].expand(2, 2, 2))
    assert batch["next", "reward"][:, 0, 0].tolist() == [4.0, 0.5]


def test_evaluation_clips_the_same_way():
    environments = SyncVectorEnv([Steered], autoreset_mode=AutoresetMode.DISABLED)
    layout = ObservationLayout(Steered.observation_space)
    policy = lambda observation: torch.tensor([[-3.0, 5.0]])  # noqa: E731
    assert evaluate_policy(policy, environments, layout, [1], max_episode_steps=9).returns == [12.0]
