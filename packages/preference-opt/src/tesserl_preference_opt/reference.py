"""The reference policy: frozen, synchronised every so often, or a moving average; or its log-probs, computed before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy

import torch
from tensordict import NestedKey
from torch import Tensor, nn
from torch.nn import Parameter

from tesserl_preference_opt.pairs import PreferencePairs
from tesserl_preference_opt.policy import PolicyPass, action_log_probs, check_actor, keeps_time, policy_distribution
from tesserl_preference_opt.pool import SegmentBlock, SegmentPool
from tesserl_preference_opt.steps import Steps, read_segments


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

    def train(self, mode: bool = True) -> ReferencePolicy:  # noqa: ARG002 (torch's signature)
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


def reference_source(actor_network: nn.Module, reference_network: nn.Module | str) -> nn.Module:
    """Return the policy that a loss's reference is a copy of.

    Args:
        actor_network: the loss's actor.
        reference_network: ``"copy"`` for the actor, or a policy.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(reference_network, nn.Module):
        return reference_network
    if reference_network == "copy":
        return actor_network
    raise ValueError(f'reference_network must be "copy" or a policy, got {reference_network!r}')


@torch.no_grad()
def precompute_reference_log_probs(
    pairs: PreferencePairs, actor_network: nn.Module, *, chunk_size: int = 2**16, action_key: NestedKey = "action"
) -> PreferencePairs:
    """Add the log-probs of a reference policy to pairs, each step's once: for a reference that stays as it is.

    Args:
        pairs: with the policy's observations.
        actor_network: the reference, see `check_actor`; run in evaluation mode, its mode left as it was.
        chunk_size: steps in one pass, at least 1. A recurrent policy runs over whole segments, one after another where
            they are longer.
        action_key: name of the actions.

    Returns:
        Pairs whose steps have ``reference_log_prob``; everything else is shared with ``pairs``.

    Raises:
        TypeError: ``actor_network`` yields no distribution.
        ValueError: ``chunk_size`` is below 1.
    """
    check_actor(actor_network)
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    was_training = actor_network.training
    actor_network.eval()
    try:
        blocks = [_block_log_probs(block, actor_network, chunk_size, action_key) for block in pairs.pool.blocks]
    finally:
        actor_network.train(was_training)
    return pairs.with_steps("reference_log_prob", blocks)


def _block_log_probs(block: SegmentBlock, actor_network: nn.Module, chunk_size: int, action_key: NestedKey) -> Tensor:
    """Return log-probs of a block's steps, ``[N]``; 0 for those that are in no segment."""
    num_steps = len(block.steps)
    if keeps_time(actor_network):
        longest = max(1, int(block.length.max()))
        pool, parts = SegmentPool([block]), torch.split(torch.arange(len(block.length)), max(1, chunk_size // longest))
        batches = [pool.gather(part) for part in parts]
    else:
        batches = [part.unsqueeze(0) for part in block.steps.split(chunk_size)]
    rows = []
    for batch in batches:
        segments = read_segments(batch, "mask")
        policy = PolicyPass(actor_network, [segments], action_key)
        rows.append(policy.log_probs[segments.mask])
    values = torch.cat(rows)
    if not keeps_time(actor_network):
        return values
    return values.new_zeros(num_steps).index_copy(0, block.layout()[2], values)
