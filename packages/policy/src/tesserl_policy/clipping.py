"""Clip the ratio of a policy to the policy that acted (PPO, Schulman et al. 2017, arXiv:1707.06347).

Shapes: ``*B`` any batch shape.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

Number = float | Tensor
"""A number, or a scalar tensor, so that a compiled loss is not recompiled for another value."""


def log_ratio_bounds(clip_epsilon: Number, clip_epsilon_high: Number | None = None) -> tuple[Any, Any]:
    """Return the logarithms of the bounds ``1 - clip_epsilon`` and ``1 + clip_epsilon_high``.

    Args:
        clip_epsilon: how far the ratio may fall below 1, at least 0; from 1 on there is no lower bound.
        clip_epsilon_high: how far the ratio may rise above 1, at least 0; None for ``clip_epsilon``.

    Returns:
        (lower bound, upper bound).
    """
    high = clip_epsilon if clip_epsilon_high is None else clip_epsilon_high
    return _log1p(-clip_epsilon), _log1p(high)


def clipped_ratio(
    log_ratio: Tensor, advantages: Tensor, low: Number, high: Number, *, dual_clip: float | None = None
) -> Tensor:
    """Return the ratio ``r`` that the clipped objective ``min(r A, clip(r) A)`` multiplies by the advantage ``A``.

    The minimum bounds the ratio from above where the advantage is positive, and from below where it is negative. A dual
    clip (Ye et al. 2020, arXiv:1912.09729) adds an upper bound where the advantage is negative. The logarithm of the
    ratio is clipped, so that a large ratio cannot overflow. No gradient flows through a clipped ratio.

    Args:
        log_ratio: logarithm of the ratio, ``[*B]``.
        advantages: in reward units, ``[*B]``.
        low: lower bound of the logarithm, see `log_ratio_bounds`.
        high: upper bound of the logarithm.
        dual_clip: largest ratio where the advantage is negative, above 1; None for no bound.

    Returns:
        Ratio, ``[*B]``.
    """
    is_negative = advantages < 0
    highest = math.inf if dual_clip is None else math.log(dual_clip)
    lower = torch.full_like(log_ratio, -math.inf).masked_fill_(is_negative, low)
    if isinstance(high, Tensor):
        upper = torch.where(is_negative, highest, high).to(log_ratio.dtype)
    else:
        upper = torch.full_like(log_ratio, high).masked_fill_(is_negative, highest)
    return log_ratio.clamp(lower, upper).exp()


def _log1p(number: Number) -> Number:
    if isinstance(number, Tensor):
        return number.clamp(min=-1).log1p()
    return math.log1p(number) if number > -1 else -math.inf
