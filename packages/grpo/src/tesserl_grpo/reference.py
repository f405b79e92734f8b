"""The reference policy from which the policy is not to go far."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn


class ReferencePolicy(nn.Module):
    """A copy of a policy that is frozen, synchronised every few updates, or a moving average.

    Call `step` after each update; every ``interval`` calls the copy takes
    ``rate * policy + (1 - rate) * copy`` (Gorbatovski et al. 2024, arXiv:2404.09656; TRL's ``sync_ref_model``).

    - frozen: ``interval=None``;
    - synchronised every N updates: ``interval=N``;
    - moving average: ``interval=1, rate=0.01``.

    Copy and counter are in the state dict.

    Args:
        policy: the policy that is trained; its copy is the reference from now on.
        interval: calls of `step` between changes of the copy, at least 1; None for never.
        rate: how far the copy goes towards the policy each time, in (0, 1].

    Raises:
        ValueError: ``interval`` or ``rate`` is out of its range.
    """

    num_steps: Tensor

    def __init__(self, policy: nn.Module, *, interval: int | None = None, rate: float = 1.0) -> None:
        super().__init__()
        if interval is not None and interval < 1:
            raise ValueError(f"interval must be None or at least 1, got {interval}; None never changes the reference")
        if not 0 < rate <= 1:
            raise ValueError(f"rate must be in (0, 1], got {rate}; 1 copies the policy")
        self.interval = interval
        self.rate = rate
        self.network = deepcopy(policy).requires_grad_(False)
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def step(self, policy: nn.Module) -> bool:
        """Count an update of the policy, and follow it if it is time.

        Args:
            policy: the one that is trained.

        Returns:
            Whether the reference changed.
        """
        self.num_steps += 1
        if self.interval is None or int(self.num_steps) % self.interval:
            return False
        for own, trained in zip(self.network.parameters(), policy.parameters(), strict=True):
            own.lerp_(trained, self.rate)
        for buffer, current in zip(self.network.buffers(), policy.buffers(), strict=True):
            buffer.copy_(current)  # statistics and counters, which have no meaning half-way
        return True
