"""Sample Factory's APPO in its serial, synchronous mode, which is PPO. A request is a number of steps to train.

The library's event loop runs until the end. After each training iteration it calls an observer, which stops the clock,
answers, and waits for the next request.
"""

import json
import logging
import math
import sys
import tempfile
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from sample_factory.algo.runners.runner import AlgoObserver, Runner
from sample_factory.cfg.arguments import parse_full_cfg, parse_sf_args
from sample_factory.envs.env_utils import register_env
from sample_factory.train import make_runner
from stdio import Clock
from tasks import make_unchecked


class Batch(gym.Env):
    """A vector environment of Gymnasium in the form that batched sampling expects: one agent per environment."""

    is_multiagent = True

    def __init__(self, task: str, num_envs: int) -> None:
        self.environments = gym.vector.SyncVectorEnv([lambda: make_unchecked(task)] * num_envs, copy=False)
        self.observation_space = self.environments.single_observation_space
        self.action_space = self.environments.single_action_space
        self.num_agents = num_envs

    def reset(self, **options: Any) -> tuple[np.ndarray, dict]:
        return self.environments.reset(**options)[0], {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        observation, reward, terminated, truncated, _ = self.environments.step(actions)
        return observation, reward.astype(np.float32), terminated, truncated, {}


def make_batch(task: str, options: Any, *_: object) -> gym.Env:
    return Batch(task, steps_per_iteration(options) // options.rollout)


def steps_per_iteration(options: Any) -> int:
    return options.batch_size * options.num_batches_per_epoch


class Requests(AlgoObserver):
    """Answer requests between training iterations."""

    def __init__(self, steps_per_iteration: int) -> None:
        self.steps_per_iteration = steps_per_iteration
        self.first = self.last = 1
        self.clock: Clock | None = None

    def on_training_step(self, _: Runner, iteration: int) -> None:
        if iteration < self.last:
            return
        count = (iteration - self.first) * self.steps_per_iteration
        print(json.dumps({"count": count, **self.clock.read()} if self.clock else {"ready": 1}), flush=True)
        request = sys.stdin.readline()
        if not request:
            sys.exit()
        self.first = iteration
        self.last = iteration + math.ceil(json.loads(request) / self.steps_per_iteration)
        self.clock = Clock()


def arguments(settings: dict, train_dir: str) -> list[str]:
    """Return the command line of the settings."""
    options = {"env": settings["task"], "seed": settings["seed"], "train_dir": train_dir, **settings["options"]}
    words = []
    for name, value in options.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words


def main() -> None:
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    logging.getLogger("rl").setLevel(logging.ERROR)
    register_env(settings["task"], make_batch)
    with tempfile.TemporaryDirectory() as train_dir:
        words = arguments(settings, train_dir)
        parser, _ = parse_sf_args(words)
        options, runner = make_runner(parse_full_cfg(parser, words))
        runner.register_observer(Requests(steps_per_iteration(options)))
        runner.init()
        runner.run()


if __name__ == "__main__":
    main()
