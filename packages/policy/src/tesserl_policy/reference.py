"""Hold a copy of a policy that stays behind it: frozen, synchronised or averaged."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn


class ReferencePolicy(nn.Module):
    """Hold a copy of a policy that is frozen, synchronised every few updates, or a moving average.

    Call `step` after each update. Every ``interval`` calls the copy becomes ``rate * policy + (1 - rate) * copy``
    (Gorbatovski et al. 2024, arXiv:2404.09656; TRL's ``sync_ref_model``):

    - frozen: ``interval=None``;
    - synchronised every N updates: ``interval=N``;
    - moving average: ``interval=1, rate=0.01``, of a policy in float32: half precision rounds such small steps away.

    The copy is always in evaluation mode, whatever is done to the loss that holds it: it has no dropout, and its own
    forward passes change none of its buffers. The noise of noisy layers is zero. Copy and counter are in the state
    dict.

    Args:
        policy: the policy that is trained, or any other; copied now, buffers included.
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
        self._modules["network"] = deepcopy(policy).requires_grad_(False)
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.int64))
        self.train(False)
        self._zero_noise()

    @property
    def network(self) -> Any:
        """The copy, in evaluation mode."""
        network: Any = self._modules["network"]
        return network.eval() if network.training else network

    def train(self, mode: bool = True) -> ReferencePolicy:  # noqa: ARG002 (torch's signature)
        """Stay in evaluation mode.

        Args:
            mode: ignored.

        Returns:
            This reference.
        """
        return super().train(False)

    def step(self, policy: nn.Module) -> bool:
        """Count an update of the policy, and follow it if it is time.

        Args:
            policy: the one that was copied, as it is now.

        Returns:
            Whether the reference changed.
        """
        self.num_steps += 1
        if self.interval is None or int(self.num_steps) % self.interval:
            return False
        self.move(policy, self.rate)
        return True

    @torch.no_grad()
    def move(self, policy: nn.Module, rate: float = 1.0) -> None:
        """Move towards a policy now, without counting.

        Args:
            policy: the one that was copied, as it is now.
            rate: how far, in (0, 1]; 1 copies. Buffers (statistics, counters) have no meaning half-way and are copied.
        """
        network = self.network
        for own, trained in zip(network.parameters(), policy.parameters(), strict=True):
            own.lerp_(trained.to(own), rate)
        # Half-way between two weights the singular vectors of neither are right: `SpectralConv2d` finds its own anew
        spectral: list[Any] = [layer for layer in network.modules() if rate < 1 and hasattr(layer, "power_iteration")]
        vectors = {id(buffer) for layer in spectral for buffer in layer.buffers(recurse=False)}
        for buffer, current in zip(network.buffers(), policy.buffers(), strict=True):
            if id(buffer) not in vectors:
                buffer.copy_(current)
        for layer in spectral:
            layer.power_iteration(15)
        self._zero_noise()

    def _zero_noise(self) -> None:
        layers: list[Any] = [layer for layer in self.network.modules() if hasattr(layer, "zero_noise")]
        for layer in layers:
            layer.zero_noise()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Rename what ``tesserl-preference-opt`` 0.1 called ``num_updates``."""
        if f"{prefix}num_updates" in state_dict:
            state_dict[f"{prefix}num_steps"] = state_dict.pop(f"{prefix}num_updates")
        super()._load_from_state_dict(state_dict, prefix, *args)
