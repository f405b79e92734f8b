"""Reading what the loss needs out of a TensorDict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import NestedKey, TensorDictBase
from torch import Tensor


@dataclass
class Steps:
    """What the loss needs of the steps of a batch ``*B``: trajectories ``[P, T]``, or steps ``[S]``."""

    inputs: list[Tensor]  # of the policy
    action: Tensor
    old_log_probs: Tensor  # [*B]
    advantages: Tensor  # [*B]
    mask: Tensor | None  # [*B] bool
    weights: Tensor | None  # [*B]


def read_steps(tensordict: TensorDictBase, keys: Any, input_keys: Sequence[NestedKey]) -> Steps:
    """Read a batch.

    Args:
        tensordict: the batch.
        keys: names of the entries.
        input_keys: names of the policy's inputs.

    Returns:
        The batch, in which a valid step stands wherever there was padding.

    Raises:
        KeyError: a key is missing.
        ValueError: an entry has an unexpected shape.
    """
    old_log_probs: Tensor = get_entry(tensordict, keys.sample_log_prob).detach()
    batch_shape = old_log_probs.shape
    inputs, action, mask = read_policy_inputs(tensordict, keys, input_keys, batch_shape)
    advantages = per_step(keys.advantage, get_entry(tensordict, keys.advantage), batch_shape).detach()
    weights = tensordict.get(keys.step_weight, None)
    if weights is not None:
        weights = per_step(keys.step_weight, weights, batch_shape)
    if mask is not None:
        advantages = torch.where(mask, advantages, 0.0)
        weights = None if weights is None else torch.where(mask, weights, 0.0)
    return Steps(inputs, action, old_log_probs, advantages, mask, weights)


def read_policy_inputs(
    tensordict: TensorDictBase, keys: Any, input_keys: Sequence[NestedKey], batch_shape: torch.Size
) -> tuple[list[Tensor], Tensor, Tensor | None]:
    """Read what the policy is given and what it did.

    Args:
        tensordict: the batch.
        keys: names of the entries.
        input_keys: names of the policy's inputs.
        batch_shape: ``*B``.

    Returns:
        Inputs, actions and the mask, if there is one. Padding may hold anything, and what a network makes of it can be
        infinite, whose gradient times zero is not a number: so a valid step is put in the place of each padded one.

    Raises:
        KeyError: a key is missing.
        ValueError: the mask has another shape.
    """
    inputs: list[Tensor] = [get_entry(tensordict, key) for key in input_keys]
    action: Tensor = get_entry(tensordict, keys.action)
    mask = tensordict.get(keys.mask, None)
    if mask is None:
        mask = tensordict.get(("collector", "mask"), None)
    if mask is None:
        return inputs, action, None
    mask = per_step(keys.mask, mask, batch_shape).bool()
    first_valid = mask.flatten().to(torch.uint8).argmax().reshape(1)
    inputs = [_fill(entry, mask, first_valid) if entry.is_floating_point() else entry for entry in inputs]
    return inputs, _fill(action, mask, first_valid), mask


def get_entry(tensordict: TensorDictBase, key: NestedKey) -> Any:
    """Return an entry.

    Args:
        tensordict: where to look.
        key: its name.

    Returns:
        The entry.

    Raises:
        KeyError: it is missing; the message lists what there is.
    """
    value = tensordict.get(key, None)
    if value is None:
        present = sorted(map(str, tensordict.keys()))
        raise KeyError(f"expected the key {key!r}, the batch has {present}; rename keys with set_keys")
    return value


def per_step(key: NestedKey, entry: Tensor, batch_shape: torch.Size) -> Tensor:
    """Drop the last dimension of an entry where it is one too many.

    Args:
        key: its name, for the message.
        entry: ``[*B]`` or ``[*B, 1]``.
        batch_shape: ``*B``.

    Returns:
        The entry, ``[*B]``.

    Raises:
        ValueError: it has another shape.
    """
    if entry.shape == batch_shape:
        return entry
    if entry.shape == (*batch_shape, 1):
        return entry.squeeze(-1)
    raise ValueError(
        f"{key} must have the shape of the log-probabilities {tuple(batch_shape)}, or one more dimension of size 1, "
        f"got {tuple(entry.shape)}; expand what belongs to a trajectory to its steps"
    )


def _fill(entry: Tensor, mask: Tensor, first_valid: Tensor) -> Tensor:
    """Return an entry ``[*B, ...]`` with its first valid step in the place of each padded one."""
    event_shape = entry.shape[mask.dim() :]
    step = entry.reshape(-1, *event_shape).index_select(0, first_valid)
    return torch.where(mask.reshape(*mask.shape, *(1 for _ in event_shape)), entry, step)
