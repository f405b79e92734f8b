"""Read the entries of a batch that the loss needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tensordict import NestedKey, TensorDictBase
from torch import Tensor
from torchrl.objectives.common import AUTO_LOSS_MASK_KEYS

from tesserl_iqn.network import QuantileNetwork
from tesserl_policy import Entries


@dataclass(slots=True)
class Batch:
    """The entries of a batch ``*B`` that the loss reads; action, reward and discount have ``N`` last with blocks."""

    observation: list[Tensor]
    next_observation: list[Tensor]
    action: Tensor  # [*B, (N,)] int64
    reward: Tensor  # [*B, (N,)]
    discount: Tensor  # [*B, (N,)], 0 where the transition terminated
    weight: Tensor | None  # [*B], of prioritised replay
    mask: Tensor | None  # [*B] bool, true on valid transitions
    action_mask: Tensor | None  # [*B, (N,) A] bool, true for actions allowed in the present state
    next_action_mask: Tensor | None  # [*B, (N,) A] bool, for the next state


def read_batch(
    tensordict: TensorDictBase,
    keys: Any,
    observation_keys: list[NestedKey],
    network: QuantileNetwork,
    *,
    discount: Tensor,
    action_space: str,
    mask_key: NestedKey | None,
    weighted: bool,
) -> Batch:
    """Read a batch of transitions from the given keys; refuse entries of another shape or type."""
    entries = Entries(tensordict)
    following = Entries(entries.get("next"))
    reward, terminated = following.get(keys.reward), following.get(keys.terminated)
    if reward.shape[-1:] != (1,) or terminated.shape != reward.shape:
        raise ValueError(
            f"reward and terminated must both have the shape [*B, 1], got {tuple(reward.shape)} and "
            f"{tuple(terminated.shape)}; unsqueeze the last dimension"
        )
    if terminated.dtype != torch.bool:
        raise TypeError(f"{keys.terminated} must be bool, got {terminated.dtype}; convert it with .bool()")
    reward = reward.squeeze(-1)
    batch_shape = reward.shape
    factor = discount.to(torch.float64 if reward.dtype == torch.float64 else torch.float32)
    steps = entries.column(keys.steps_to_next_obs, batch_shape)
    if steps is not None:
        factor = factor**steps
    bootstrap = torch.where(terminated.squeeze(-1), 0.0, factor)
    action = _read_action(entries.get(keys.action), keys.action, batch_shape, network, action_space)
    if network.num_blocks is not None:
        reward, bootstrap = reward.unsqueeze(-1).expand_as(action), bootstrap.unsqueeze(-1).expand_as(action)
    action_mask = entries.find(keys.action_mask)
    mask_keys = () if mask_key is None else AUTO_LOSS_MASK_KEYS if mask_key == "auto" else (mask_key,)
    return Batch(
        [entries.get(key) for key in observation_keys],
        [following.get(key) for key in observation_keys],
        action,
        reward,
        bootstrap,
        entries.column(keys.priority_weight, batch_shape) if weighted else None,
        entries.mask(mask_keys, batch_shape),
        action_mask,
        None if action_mask is None else following.get(keys.action_mask),
    )


def _read_action(
    action: Tensor, key: NestedKey, batch_shape: torch.Size, network: QuantileNetwork, action_space: str
) -> Tensor:
    """Return actions as categories, ``[*B, (N,)]``."""
    blocks = () if network.num_blocks is None else (network.num_blocks,)
    expected: tuple[int, ...] = (*batch_shape, *blocks)
    if action_space == "one_hot":
        expected = (*batch_shape, (network.num_blocks or 1) * network.num_actions)
    if action.shape != expected:
        raise ValueError(
            f"action must have the shape {expected} for action_space={action_space!r}, got {tuple(action.shape)}; "
            "say how actions are stored with action_space=, and drop singleton dimensions"
        )
    if action_space == "one_hot":
        return action.reshape(*batch_shape, *blocks, network.num_actions).argmax(dim=-1)
    if action.is_floating_point():
        raise TypeError(f"{key} must hold categories, int64, got {action.dtype}; convert it with .long()")
    return action.to(torch.int64)


def explain_actions(action: Tensor, num_actions: int) -> None:
    """Raise an error if an action ``[*B, (N,)]`` does not exist; called after torch has failed."""
    if action.numel():
        low, high = (int(bound) for bound in action.aminmax())
        if low < 0 or high >= num_actions:
            raise ValueError(
                f"action must be in [0, {num_actions}), the actions of the network, got values from {low} to {high}; "
                "number actions from 0"
            )
