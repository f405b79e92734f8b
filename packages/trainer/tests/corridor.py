"""A task and the function that makes it; worker processes import this module, which brings no torch."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Corridor(gym.Env):
    """Walk to the right; each step costs a point."""

    def __init__(self, length):
        self.observation_space = spaces.Box(0, 9, (1,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 0
        return self.seen(), {}

    def step(self, action):
        self.place = max(self.place + 2 * int(action) - 1, 0)
        return self.seen(), -1.0, self.place == self.length, False, {}

    def seen(self):
        return np.array([self.place], np.float32)


def make_corridor(length=3):
    return gym.wrappers.TimeLimit(Corridor(length), 9)
