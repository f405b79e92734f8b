"""Environments in trouble. Worker processes import this module, so it imports little."""

import json
import os
import signal
import time
from pathlib import Path

import gymnasium as gym
import numpy as np


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


class Answering:
    """Answers as a collector worker does, with its number; stops its own process or raises if it is asked to."""

    def __init__(self, worker, life, report):
        self.worker = worker

    def answer(self, name, arguments):
        if name == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if name == "raise":
            raise LookupError("the task broke")
        return np.full(arguments["size"], self.worker)

    def close(self):
        pass


class Doomed(gym.Wrapper):
    """CartPole; the worker whose first seed the file names gets into trouble at a step of its life.

    Where the file names none it is the first worker that gets there.
    """

    def __init__(self, path):
        super().__init__(gym.make("CartPole-v1"))
        self.path, self.seed, self.steps = Path(path), None, 0

    def reset(self, *, seed=None, options=None):
        self.seed = seed if self.seed is None else self.seed
        return self.env.reset(seed=seed, options=options)

    def step(self, action):
        self.steps += 1
        if self.path.exists():
            plan = json.loads(self.path.read_text())
            if (plan["seed"] in (None, self.seed)) and self.steps == plan["step"] and self.claims(plan):
                trouble(plan["kind"])
        return self.env.step(action)

    def claims(self, plan):
        """Return whether it is this worker's turn: a file can be renamed only once."""
        if plan["seed"] is None:
            try:
                self.path.rename(self.path.with_suffix(".claimed"))
            except FileNotFoundError:
                return False
        return True
