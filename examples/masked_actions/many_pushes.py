"""CartPole with twenty actions, of which two are allowed at a time: one that pushes left, and one that pushes right."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv


class ManyPushes(gym.Wrapper):
    """Give the two pushes of CartPole different action numbers in each step; the mask allows these two numbers.

    Args:
        environment: CartPole.
        num_pairs: pairs of actions, of which one is drawn for each step.
        masked: give the policy a mask and raise an error at a forbidden action. Otherwise the flags are part of the
            observation, and a forbidden action ends the episode.
    """

    def __init__(self, environment: gym.Env, num_pairs: int = 10, masked: bool = True) -> None:
        super().__init__(environment)
        self.num_pairs, self.masked = num_pairs, masked
        self.name = "action_mask" if masked else "allowed"
        flags = spaces.MultiBinary(2 * num_pairs)
        self.observation_space = spaces.Dict({"state": environment.observation_space, self.name: flags})
        self.action_space = spaces.Discrete(2 * num_pairs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Reset CartPole, and draw the first pair."""
        state, info = self.env.reset(seed=seed, options=options)
        return self._seen(state), info

    def step(self, action: int):
        """Push, and draw the next pair."""
        allowed = action // 2 == self.pair
        if not allowed and self.masked:
            raise ValueError(f"action {action} is forbidden, expected {2 * self.pair} or {2 * self.pair + 1}")
        state, reward, terminated, truncated, info = self.env.step(action % 2)
        return self._seen(state), reward * allowed, terminated or not allowed, truncated, info

    def _seen(self, state: np.ndarray) -> dict[str, np.ndarray]:
        self.pair = int(self.np_random.integers(self.num_pairs))
        flags = np.zeros(2 * self.num_pairs, np.int8)
        flags[2 * self.pair : 2 * self.pair + 2] = 1
        return {"state": state, self.name: flags}


def make(**kwargs: Any) -> gym.Env:
    """Make the task; the arguments are those of `ManyPushes`."""
    return ManyPushes(CartPoleEnv(), **kwargs)


gym.register("ManyPushes-v0", make, max_episode_steps=500)
