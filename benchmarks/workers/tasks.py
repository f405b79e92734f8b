"""The tasks, in the form that peers get."""

import copy

import gymnasium as gym
import numpy as np


class Planes(gym.ObservationWrapper):
    """MinAtar's boolean ``[10, 10, C]`` as 0 and 1, channels first."""

    def __init__(self, environment: gym.Env) -> None:
        super().__init__(environment)
        height, width, channels = environment.observation_space.shape
        self.observation_space = gym.spaces.Box(0.0, 1.0, (channels, height, width), np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return observation.transpose(2, 0, 1).astype(np.float32)


def make(task: str) -> gym.Env:
    """Make a task: MinAtar as planes, ALE as four grey images of 84 x 84, other tasks unchanged."""
    if task.startswith("ALE/"):
        import ale_py

        gym.register_envs(ale_py)
        frames = gym.wrappers.AtariPreprocessing(gym.make(task, frameskip=1), frame_skip=4)
        return gym.wrappers.FrameStackObservation(frames, 4)
    if not task.startswith("MinAtar/"):
        return gym.make(task)
    from minatar.gym import register_envs

    if task not in gym.registry:
        register_envs()
    return Planes(gym.make(task))


def make_unchecked(task: str) -> gym.Env:
    """Make a task of Gymnasium without its checks of actions, observations and the order of calls."""
    spec = copy.copy(gym.spec(task))
    spec.disable_env_checker, spec.order_enforce = True, False
    return gym.make(spec)
