"""Acting in a vector environment with nothing around it."""

from collections.abc import Callable

import torch
from gymnasium.vector import VectorEnv
from torch import Tensor


class Rollout:
    """Steps a vector environment that resets by itself, and keeps nothing."""

    def __init__(self, environments: VectorEnv, policy: Callable[[Tensor], Tensor]) -> None:
        self.environments, self.policy = environments, policy
        self.observation, _ = environments.reset(seed=0)

    @torch.no_grad()
    def __call__(self, num_steps: int) -> None:
        for _ in range(num_steps):
            action = self.policy(torch.from_numpy(self.observation))
            self.observation, _, _, _, _ = self.environments.step(action.numpy())
