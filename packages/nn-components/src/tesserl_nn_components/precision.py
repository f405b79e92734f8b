"""Keep layers in float32 under autocast, and statistics in float64 when a network is cast."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


def under_autocast(device_type: str) -> bool:
    """Return whether autocast is enabled for a type of device; never for ``"meta"``."""
    if device_type == "cpu":  # saves a function call, twice in each small forward pass
        return torch.is_autocast_enabled(device_type)
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def full_precision(device_type: str) -> AbstractContextManager[object]:
    """Return a context without autocast."""
    return torch.autocast(device_type, enabled=False) if under_autocast(device_type) else nullcontext()


def in_full_precision(layer: nn.Module, features: Tensor) -> Tensor:
    """Call a layer without autocast, in the dtype of its parameters.

    In bfloat16, numbers near 10 are 0.06 apart; the values of two actions often differ by less.

    Args:
        layer: module with parameters.
        features: its input, of any floating point dtype.
    """
    with torch.autocast(features.device.type, enabled=False):
        result: Tensor = layer(features.to(next(layer.parameters()).dtype))
    return result


def keep_float64(apply: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a function for ``nn.Module._apply`` that moves statistics and leaves them in float64.

    In float32, a sum over millions of steps stops growing, because rounding discards small increments. So
    ``network.to(torch.bfloat16)`` casts the weights but not the statistics. A device without float64 (MPS) gets
    float32.

    Args:
        apply: function that casts or moves a tensor.
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
