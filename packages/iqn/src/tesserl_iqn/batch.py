"""Reading what the loss needs out of a TensorDict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tensordict import NestedKey, TensorDictBase
from torch import Tensor

from tesserl_iqn.network import QuantileNetwork


@dataclass
class Batch:
    """The entries of a batch ``*B`` that the loss reads; action, reward and discount have ``N`` last with blocks."""

    batch_shape: torch.Size
    observation: list[Tensor]
    next_observation: list[Tensor]
    action: Tensor  # [*B, (N,)] int64
    reward: Tensor  # [*B, (N,)]
    discount: Tensor  # [*B, (N,)], 0 where the transition terminated


def read_batch(
    tensordict: TensorDictBase,
    keys: Any,
    observation_keys: list[NestedKey],
    network: QuantileNetwork,
    *,
    discount: float,
    action_space: str,
) -> Batch:
    """Read a batch of transitions.

    Args:
        tensordict: the transitions.
        keys: names of action, reward, terminated and steps_to_next_obs.
        observation_keys: names of the network's observations.
        network: tells the number of actions and blocks.
        discount: discount of one step.
        action_space: ``"categorical"`` or ``"one_hot"``.

    Returns:
        The batch.

    Raises:
        KeyError: a key is missing.
        TypeError: ``terminated`` is not bool, or actions are not integers.
        ValueError: reward, terminated or action has an unexpected shape.
    """
    next_tensordict = get_entry(tensordict, "next")
    reward = get_entry(next_tensordict, keys.reward)
    terminated = get_entry(next_tensordict, keys.terminated)
    if reward.shape[-1:] != (1,) or terminated.shape != reward.shape:
        raise ValueError(
            f"reward and terminated must both have the shape [*B, 1], got {tuple(reward.shape)} and "
            f"{tuple(terminated.shape)}; unsqueeze the last dimension"
        )
    if terminated.dtype != torch.bool:
        raise TypeError(f"{keys.terminated} must be bool, got {terminated.dtype}; convert it with .bool()")
    reward = reward.squeeze(-1)
    steps = tensordict.get(keys.steps_to_next_obs, None)
    factor = discount if steps is None else discount ** steps.reshape(reward.shape)
    bootstrap = torch.where(terminated.squeeze(-1), 0.0, factor)
    batch_shape = reward.shape
    action = _read_action(tensordict, keys.action, batch_shape, network, action_space)
    if network.num_blocks is not None:
        reward, bootstrap = reward.unsqueeze(-1).expand_as(action), bootstrap.unsqueeze(-1).expand_as(action)
    return Batch(
        batch_shape=batch_shape,
        observation=[get_entry(tensordict, key) for key in observation_keys],
        next_observation=[get_entry(next_tensordict, key) for key in observation_keys],
        action=action,
        reward=reward,
        discount=bootstrap,
    )


def get_entry(tensordict: TensorDictBase, key: NestedKey) -> Any:
    """Return an entry.

    Args:
        tensordict: where to look.
        key: its name.

    Returns:
        The entry.

    Raises:
        KeyError: it is missing; the message lists what there is.
        TypeError: a dict was given instead of a TensorDict.
    """
    value = tensordict.get(key, None)
    if value is None:
        present = sorted(map(str, tensordict.keys()))
        _refuse_dict(tensordict, key)
        raise KeyError(f"expected the key {key!r}, the batch has {present}; rename keys with set_keys")
    return value


def _refuse_dict(tensordict: TensorDictBase, key: NestedKey) -> None:
    """Refuse a dict that was given as a batch: tensordict's ``dispatch`` takes it for the first entry alone."""
    entry: Any = tensordict
    while isinstance(entry, TensorDictBase) and len(list(entry.keys())) == 1:
        entry = entry.get(next(iter(entry.keys())))
        if isinstance(entry, TensorDictBase) and entry.get(key, None) is not None:
            raise TypeError(
                "a batch must be a TensorDict, got a dict, which counts as one entry; give TensorDict(batch, "
                "batch_size)"
            )


def _read_action(
    tensordict: TensorDictBase, key: NestedKey, batch_shape: torch.Size, network: QuantileNetwork, action_space: str
) -> Tensor:
    """Return actions as categories, ``[*B, (N,)]``."""
    action: Tensor = get_entry(tensordict, key)
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


def explain_actions(batch: Batch, network: QuantileNetwork) -> None:
    """Raise an error if an action does not exist; called after torch has failed.

    Args:
        batch: what was read.
        network: tells the number of actions.

    Raises:
        ValueError: an action is out of range.
    """
    if batch.action.numel():
        low, high = (int(bound) for bound in batch.action.aminmax())
        if low < 0 or high >= network.num_actions:
            raise ValueError(
                f"action must be in [0, {network.num_actions}), the actions of the network, got values from {low} to "
                f"{high}; number actions from 0"
            )
