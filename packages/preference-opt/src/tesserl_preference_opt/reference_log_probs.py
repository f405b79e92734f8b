"""Compute log-probs of a reference policy, inside a loss or in advance."""

from __future__ import annotations

import torch
from tensordict import NestedKey
from torch import Tensor, nn

from tesserl_policy import ReferencePolicy, action_log_probs, check_actor
from tesserl_preference_data.pairs import PreferencePairs
from tesserl_preference_data.pool import SegmentBlock, SegmentPool
from tesserl_preference_data.segments import read_segments
from tesserl_preference_opt.policy import (
    PolicyPass,
    evaluation_mode,
    keeps_time,
    run_policy,
)
from tesserl_preference_opt.steps import Steps


@torch.no_grad()
def reference_log_probs(reference: ReferencePolicy, steps: Steps, *actions: Tensor) -> list[Tensor]:
    """Compute log-probs of actions under a reference.

    Args:
        reference: the reference policy.
        steps: the steps.
        *actions: tensors with one action per step.

    Returns:
        One tensor for each of ``actions``, in the shape of the steps' ``batch_size``.
    """
    distribution = run_policy(reference.network, steps)
    return [action_log_probs(distribution, action, steps.batch_size) for action in actions]


def reference_source(actor_network: nn.Module, reference_network: nn.Module | str) -> nn.Module:
    """Return the policy that the reference copies: the actor for ``"copy"``, else the given policy."""
    if isinstance(reference_network, nn.Module):
        check_actor(reference_network)
        return reference_network
    if reference_network == "copy":
        return actor_network
    raise ValueError(f'reference_network must be "copy" or a policy, got {reference_network!r}')


@torch.no_grad()
def precompute_reference_log_probs(
    pairs: PreferencePairs, actor_network: nn.Module, *, chunk_size: int = 2**16, action_key: NestedKey = "action"
) -> PreferencePairs:
    """Add the log-probs of a frozen reference policy to pairs, computed once for each step.

    Args:
        pairs: pairs with the policy's observations.
        actor_network: the reference, see `tesserl_policy.check_actor`. It runs in evaluation mode; its modes are
            restored afterwards.
        chunk_size: steps in one pass, at least 1. A recurrent policy always runs over whole segments, also if they are
            longer.
        action_key: name of the actions.

    Returns:
        Pairs whose steps have ``reference_log_prob``; everything else is shared with ``pairs``.

    Raises:
        TypeError: ``actor_network`` returns no distribution.
        ValueError: ``chunk_size`` is below 1.
    """
    check_actor(actor_network)
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    with evaluation_mode(actor_network):
        blocks = [_block_log_probs(block, actor_network, chunk_size, action_key) for block in pairs.pool.blocks]
    return pairs.with_steps("reference_log_prob", blocks)


def _block_log_probs(block: SegmentBlock, actor_network: nn.Module, chunk_size: int, action_key: NestedKey) -> Tensor:
    """Return log-probs of a block's steps, ``[N]``; 0 for steps outside of all segments."""
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
