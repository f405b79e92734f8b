"""The reference policy: frozen, synchronised every so often, or a moving average; or its log-probs, computed before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from tesserl_preference_opt.policy import action_log_probs, check_actor, policy_distribution
from tesserl_preference_opt.steps import Steps


class ReferencePolicy(nn.Module):
    """A copy of a policy that lags behind it: ``reference += rate (policy - reference)`` every ``interval`` updates.

    Without an interval it is frozen. Interval N and rate 1 copy the policy every N updates; interval 1 and a small rate
    are a moving average; 512 and 0.6 are those of TR-DPO (Gorbatovski et al. 2024, arXiv:2404.09656).

    Args:
        policy: copied now, buffers included; the copy stays in evaluation mode.
        sync_interval: calls of `update` from one synchronisation to the next, at least 1; None for never.
        update_rate: how far it moves then, in (0, 1]; 1 copies.

    Raises:
        ValueError: an option is out of its range.
    """

    num_updates: Tensor

    def __init__(self, policy: nn.Module, *, sync_interval: int | None = None, update_rate: float = 1.0) -> None:
        super().__init__()
        check_actor(policy)
        if sync_interval is not None and sync_interval < 1:
            raise ValueError(f"sync_interval must be at least 1, got {sync_interval}; None for a frozen reference")
        if not 0 < update_rate <= 1:
            raise ValueError(f"update_rate must be in (0, 1], got {update_rate}; 1 copies the policy")
        self.network = deepcopy(policy).requires_grad_(False).eval()
        self.sync_interval = sync_interval
        self.update_rate = update_rate
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))

    @classmethod
    def of(
        cls, policy: nn.Module, network: nn.Module | str | None, sync_interval: int | None, update_rate: float
    ) -> ReferencePolicy | None:
        """Make the reference of a loss.

        Args:
            policy: the loss's actor.
            network: ``"copy"`` copies it, a policy is copied itself, None makes none.
            sync_interval: see the class.
            update_rate: see the class.

        Returns:
            The reference, or None.

        Raises:
            ValueError: an option is out of its range, or says how to update a reference that there is not.
        """
        if network is None:
            if sync_interval is not None or update_rate != 1:
                raise ValueError(
                    f"reference_network must be given to be updated, got {sync_interval=} and {update_rate=} without; "
                    'use reference_network="copy"'
                )
            return None
        if isinstance(network, str) and network != "copy":
            raise ValueError(f'reference_network must be "copy", a policy or None, got {network!r}')
        network = policy if isinstance(network, str) else network
        return cls(network, sync_interval=sync_interval, update_rate=update_rate)

    def train(self, mode: bool = True) -> ReferencePolicy:
        """Stay in evaluation mode.

        Args:
            mode: ignored: a reference has no dropout.

        Returns:
            This reference.
        """
        return super().train(False)

    def update(self, policy: nn.Module) -> None:
        """Count an update of the policy, and move towards it when it is time.

        Args:
            policy: the network that was copied, later.
        """
        self.num_updates += 1
        if self.sync_interval is not None and int(self.num_updates) % self.sync_interval == 0:
            self.move(policy, self.update_rate)

    @torch.no_grad()
    def move(self, policy: nn.Module, rate: float = 1.0) -> None:
        """Move towards the policy now.

        Args:
            policy: the network that was copied, later.
            rate: how far, in (0, 1]; 1 copies. Integers (counters, masks) are copied in any case.
        """
        new = policy.state_dict()
        for name, old in self.network.state_dict().items():
            if rate < 1 and old.is_floating_point():
                old.lerp_(new[name], rate)
            else:
                old.copy_(new[name])

    def leave_out(self, named: Iterable[tuple[str, Parameter]]) -> Iterator[tuple[str, Parameter]]:
        """Leave this reference's parameters out of a loss's.

        Args:
            named: names and parameters.

        Returns:
            Those that are trained.
        """
        held = {id(each) for each in self.parameters()}
        return ((name, parameter) for name, parameter in named if id(parameter) not in held)

    @torch.no_grad()
    def log_probs(self, steps: Steps, *actions: Tensor) -> list[Tensor]:
        """Log-probs of actions under the reference.

        Args:
            steps: where they were taken.
            *actions: one action for each step, each.

        Returns:
            For each of ``actions``, in the shape of the steps' ``batch_size``.
        """
        distribution = policy_distribution(self.network, steps)
        return [action_log_probs(distribution, action, steps) for action in actions]
