"""Keep values in float32 under autocast if their small differences matter."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


def under_autocast(device_type: str) -> bool:
    """Tell whether operations on a type of device are under autocast; on ``"meta"`` none ever are."""
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def full_precision(device_type: str) -> AbstractContextManager[object]:
    """Return a context without autocast."""
    return torch.autocast(device_type, enabled=False) if under_autocast(device_type) else nullcontext()


def in_full_precision(layer: nn.Module, features: Tensor) -> Tensor:
    """Call a layer outside of autocast, in the dtype of its parameters.

    An action value of 10 has neighbours 0.06 away in bfloat16, more than actions often differ by.

    Args:
        layer: module with parameters.
        features: its input, of any floating point dtype.
    """
    if under_autocast(features.device.type):
        features = features.to(next(layer.parameters()).dtype)
    with full_precision(features.device.type):
        result: Tensor = layer(features)
    return result
