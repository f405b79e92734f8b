"""A task whose every number is known."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv


class Counting(gym.Env):
    """Observation ``[episode, t]``; reward 10 * episode + t; episode e lasts ``lengths[e]`` steps.

    Even episodes terminate, odd ones are truncated.
    """

    def __init__(self, lengths: tuple[int, ...]) -> None:
        self.observation_space = spaces.Box(-100.0, 100.0, (2,), np.float32)
        self.action_space = spaces.Discrete(3)
        self.lengths, self.episode, self.t = lengths, -1, 0
        self.actions: list[int] = []

    def _observation(self) -> np.ndarray:
        return np.array([self.episode, self.t], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self._observation(), {}

    def step(self, action: int):
        self.actions.append(int(action))
        self.t += 1
        done = self.t >= self.lengths[self.episode % len(self.lengths)]
        reward = 10.0 * self.episode + self.t
        return self._observation(), reward, done and self.episode % 2 == 0, done and self.episode % 2 == 1, {}


def counting_envs(mode: AutoresetMode, *lengths: tuple[int, ...]) -> SyncVectorEnv:
    return SyncVectorEnv([lambda item=item: Counting(item) for item in lengths], autoreset_mode=mode)
