"""A custom task: walk to the right end of a corridor; each step costs 1."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Corridor(gym.Env):
    """The observation is the position in the corridor; episodes start at a random position in the left half.

    Args:
        length: steps from end to end.
    """

    def __init__(self, length: int = 20) -> None:
        self.length = length
        self.observation_space = spaces.Box(0, 1, (1,), np.float32)
        self.action_space = spaces.Discrete(2)  # left, right

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):  # noqa: ARG002
        """Begin in the left half."""
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(self.length // 2))
        return self._seen(), {}

    def step(self, action: int):
        """Take a step."""
        self.place = max(self.place + (1 if action == 1 else -1), 0)
        return self._seen(), -1.0, self.place == self.length, False, {}

    def _seen(self) -> np.ndarray:
        return np.array([self.place / self.length], np.float32)


gym.register("Corridor-v0", entry_point=Corridor, max_episode_steps=100)
