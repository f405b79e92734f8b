"""A reference policy: a copy of a policy that is frozen, synchronised or averaged."""

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
    - moving average: ``interval=1, rate=0.01``, for a policy in float32; in half precision, rounding discards such
      small steps.

    The copy always stays in evaluation mode, even if the loss that contains it is set to training mode. So it has no
    dropout, and its forward passes do not change its buffers. The noise of noisy layers is zero. Copy and counter are
    in the state dict.

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
        """Count an update of the policy; every ``interval`` calls, move the copy towards the policy.

        Args:
            policy: the policy that was copied, with its current weights.

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
        """Move the copy towards a policy now, without counting an update.

        Args:
            policy: the policy that was copied, with its current weights.
            rate: how far, in (0, 1]; 1 copies. Buffers (statistics, counters) are always copied, because averages of
                them have no meaning.
        """
        network = self.network
        for own, trained in zip(network.parameters(), policy.parameters(), strict=True):
            own.lerp_(trained.to(own), rate)
        # An averaged weight has other singular vectors than both weights: `SpectralConv2d` must find them again
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
        """Rename the counter, which ``tesserl-preference-opt`` 0.1 called ``num_updates``."""
        if f"{prefix}num_updates" in state_dict:
            state_dict[f"{prefix}num_steps"] = state_dict.pop(f"{prefix}num_updates")
        super()._load_from_state_dict(state_dict, prefix, *args)
