"""Copying and averaging state dicts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

_DDP_PREFIX = "module."


def strip_ddp_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefix ``module.`` that DistributedDataParallel adds to every key.

    Only one leading prefix is removed, so that a submodule named ``module`` keeps its name.

    Args:
        state_dict: state dict of a module, wrapped or not.

    Returns:
        A new dict with the same tensors.
    """
    return {key.removeprefix(_DDP_PREFIX): value for key, value in state_dict.items()}


@torch.no_grad()
def update_state_dict(
    module: nn.Module, state_dict: Mapping[str, Tensor], tau: float = 1.0, strip_ddp: bool = True
) -> None:
    """Move a module towards a state dict: ``tau * new + (1 - tau) * old`` for floating point entries.

    Entries of other dtypes (counters, masks) cannot be averaged: they are copied whenever ``tau`` is above 0. Tensors
    are changed in place, so the change is visible wherever they are shared.

    Args:
        module: module to update, its parameters and its buffers.
        state_dict: new values, with exactly the module's keys and shapes; dtype and device may differ.
        tau: weight of the new values, in [0, 1]; 1 copies, 0 changes nothing, others are soft (Polyak) updates.
        strip_ddp: remove the prefix of DistributedDataParallel if the keys match only without it.

    Raises:
        ValueError: if ``tau`` is outside [0, 1], or keys or shapes do not match; the message lists them.
    """
    if not 0 <= tau <= 1:
        raise ValueError(f"tau must be in [0, 1] (1 copies, 0 changes nothing), got {tau}")
    own = module.state_dict()
    if strip_ddp and state_dict.keys() != own.keys():
        state_dict = strip_ddp_state_dict(state_dict)
    _check_match(own, state_dict)
    if tau == 0:
        return
    for key, old in own.items():
        new = state_dict[key]
        if tau < 1 and (old.is_floating_point() or old.is_complex()):
            old.lerp_(new.to(old), tau)
        else:
            old.copy_(new)


def _check_match(own: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless both have the same keys with the same shapes."""
    problems = [f"missing {key}" for key in own if key not in other]
    problems += [f"unexpected {key}" for key in other if key not in own]
    problems += [
        f"{key} has shape {tuple(other[key].shape)}, the module's has {tuple(value.shape)}"
        for key, value in own.items()
        if key in other and other[key].shape != value.shape
    ]
    if problems:
        raise ValueError("state_dict must match the module's: " + "; ".join(problems))


def state_differences(own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> list[str]:
    """Return one line for each entry that differs between the state of a network and a saved state.

    Args:
        own: state dict of the network.
        saved: state dict read from a file.

    Returns:
        Lines about missing and unknown names, shapes, and kinds of number (integer or floating point); empty if the
        saved state can be loaded.
    """
    lines = [f"missing in the file: {name} {tuple(own[name].shape)}" for name in own if name not in saved]
    lines += [f"unknown to the network: {name} {tuple(saved[name].shape)}" for name in saved if name not in own]
    for name, value in own.items():
        other = saved.get(name, value)
        if other.shape != value.shape:
            lines.append(f"shape of {name}: {tuple(other.shape)} in the file, {tuple(value.shape)} in the network")
        elif other.dtype != value.dtype and not (other.is_floating_point() and value.is_floating_point()):
            lines.append(f"dtype of {name}: {other.dtype} in the file, {value.dtype} in the network")
    return lines
