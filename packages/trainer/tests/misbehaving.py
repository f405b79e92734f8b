"""A task that breaks Gymnasium's interface in one of many ways. Worker processes import this module."""

import math
import os
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium import spaces

GOOD = np.array([0.25, -0.5], np.float32)

STEPS = {
    "narrow": (GOOD[:1], 1.0, False, False, {}),
    "wide reward": (GOOD, np.array([1.0]), False, False, {}),
    "nan": (GOOD * math.nan, 1.0, False, False, {}),
    "infinite": (np.array([0.25, np.inf], np.float32), 1.0, False, False, {}),
    "nan reward": (GOOD, math.nan, False, False, {}),
    "huge reward": (GOOD, 1e300, False, False, {}),
}
"""Wrong results of a step, by name."""


class Misbehaving(gym.Env):
    """Steps like any other task until step ``at`` of its life; episodes have 5 steps.

    Args:
        wrong: a key of ``STEPS``, or a method that raises, or one that never returns: ``"sleep in step"``.
        at: step at which it goes wrong.
        log: file that gets a line with the number of the process and the method for each call but steps.
    """

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, wrong: str | None = None, at: int = 7, log: str | None = None) -> None:
        self.wrong, self.at, self.log, self.t = wrong, at, log, 0
        self.reach("make")

    def reach(self, method: str) -> None:
        if self.log is not None and method != "step":
            with Path(self.log).open("a") as file:
                file.write(f"{os.getpid()} {method}\n")
        if method == "step" and self.t < self.at:
            return
        if self.wrong == f"sleep in {method}":
            if self.log is not None:
                Path(f"{self.log}.sleeps").touch()
            time.sleep(600)
        if self.wrong == f"raise in {method}":
            raise LookupError("the task broke")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.reach("reset")
        return GOOD, {}

    def step(self, action):
        self.t += 1
        self.reach("step")
        if self.t == self.at and self.wrong in STEPS:
            return STEPS[self.wrong]
        return GOOD, 1.0, False, self.t % 5 == 0, {}

    def close(self):
        self.reach("close")


if "Misbehaving-v0" not in gym.registry:
    gym.register("Misbehaving-v0", entry_point=Misbehaving, max_episode_steps=100)
