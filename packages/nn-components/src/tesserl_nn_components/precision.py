"""Keep values in float32 under autocast, and statistics in float64 under casts, if their small differences matter."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


def under_autocast(device_type: str) -> bool:
    """Tell whether operations on a type of device are under autocast; on ``"meta"`` none ever are."""
    if device_type == "cpu":  # the answer of a function less, twice in each small pass
        return torch.is_autocast_enabled(device_type)
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
    with torch.autocast(features.device.type, enabled=False):
        result: Tensor = layer(features.to(next(layer.parameters()).dtype))
    return result


def keep_float64(apply: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a function for ``nn.Module._apply`` that moves statistics and leaves them in float64.

    A sum that grows for millions of steps stops moving in float32: an increment below half a unit in the last place is
    lost. So ``network.to(torch.bfloat16)`` casts weights and not these. A device without float64 (MPS) gets float32.

    Args:
        apply: casts or moves a tensor.
    """

    def moved(statistic: Tensor) -> Tensor:
        try:
            result = apply(statistic)
        except TypeError:  # MPS: "the MPS framework doesn't support float64"
            return apply(statistic.float())
        if result.dtype == torch.float64 or not statistic.is_floating_point() or result.device.type == "mps":
            return result
        return statistic.to(result.device, torch.float64)

    return moved
