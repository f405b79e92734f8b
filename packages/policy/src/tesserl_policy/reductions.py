"""Reductions of values per step: means over valid steps, and returns to go.

Shapes: ``P`` trajectories of at most ``T`` steps, padded at the end; ``mask`` is true on the steps that were taken.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def masked_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean over valid elements.

    Args:
        values: any shape and dtype, such as ``[P, T]``; masked values may be anything. The mean of bools is the
            fraction that is true.
        mask: true on valid elements, bool, in the shape of ``values``; None if all are valid.

    Returns:
        Scalar; 0, with a gradient of 0, if no element is valid.
    """
    dtype = values.dtype if values.is_floating_point() else torch.get_default_dtype()
    if mask is None:
        return values.mean(dtype=dtype) if values.numel() else values.sum(dtype=dtype)
    return torch.where(mask, values, 0).sum(dtype=dtype) / mask.sum().clamp(min=1)


def returns_to_go(rewards: Tensor, mask: Tensor, *, discount: float = 1.0) -> Tensor:
    """Return ``sum_k gamma^k r_t+k`` from each step to the end of its trajectory.

    Args:
        rewards: in reward units, ``[P, T]``.
        mask: true on valid steps, bool ``[P, T]``.
        discount: weight of a step relative to the step before (gamma), in [0, 1].

    Returns:
        Returns, 0 outside the mask, ``[P, T]``; the first column has the returns of the trajectories.
    """
    returns = torch.where(mask, rewards, 0.0)
    span = 1  # rewards that each entry sums so far: the span doubles, so that T steps take log2(T) passes
    while span < returns.shape[-1]:
        returns = returns + discount**span * functional.pad(returns[..., span:], (0, span))
        span *= 2
    return torch.where(mask, returns, 0.0)
