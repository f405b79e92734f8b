"""Environments in trouble. Worker processes import this module, so it imports little."""

import multiprocessing
import os
import signal
import time

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Unpicklable(Exception):
    """Can be pickled, but not be made again."""

    def __init__(self, left, right):
        super().__init__(f"{left} {right}")


def trouble(kind):
    if kind == "sleep":
        time.sleep(600)
    elif kind == "exit":
        os._exit(7)
    elif kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "raise":
        raise Unpicklable("the task", "broke")


class Troubled(gym.Env):
    """Gets into trouble of some kind, in one process, at a moment."""

    observation_space = spaces.Box(-1, 1, (1,))
    action_space = spaces.Discrete(2)

    def __init__(self, moment, kind):
        self.moment, self.kind = moment, kind
        self.reach("make")

    def reach(self, moment):
        if moment == self.moment and multiprocessing.parent_process() is not None:
            trouble(self.kind)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.reach("reset")
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.reach("step")
        return np.zeros(1, np.float32), 0.0, False, False, {}

    def snapshot(self):
        self.reach("call")
        return {"start": {}, "actions": []}

    def restore(self, snapshots):
        self.reach("restore")
        return True

    def close(self):
        self.reach("close")

    def __setattr__(self, name, value):
        if name == "color":
            self.reach("set_attr")
        super().__setattr__(name, value)
