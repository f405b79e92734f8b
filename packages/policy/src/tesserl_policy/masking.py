"""Mask forbidden actions in logits and in action values.

Shapes: ``*B`` any batch shape, ``A`` actions, ``N`` action blocks, ``nvec`` the options of each choice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tesserl_policy.precision import at_least_float32


def mask_actions(values: Tensor, allowed: Tensor) -> Tensor:
    """Set the logits or values of forbidden actions to the smallest number of the dtype.

    With masked logits, forbidden actions have a probability of exactly 0, and log-probabilities, entropies, divergences
    and gradients stay finite (minus infinity would make them NaN). With masked values, a forbidden action is never the
    best. If all actions are forbidden, as in a terminal state, all get the same number.

    Args:
        values: logits or values of all actions, ``[*B, A]``, ``[*B, N, A]`` or ``[*B, sum(nvec)]``.
        allowed: true for allowed actions, bool, in the shape of ``values``.

    Returns:
        The values, in float32 or wider, in the same shape; no gradient flows to those of forbidden actions.

    Raises:
        TypeError: the mask is not bool.
        ValueError: the mask has another shape.
    """
    if allowed.dtype != torch.bool:
        raise TypeError(
            f"action_mask must be bool, got {allowed.dtype}; convert it with .bool(), true allows an action"
        )
    if allowed.shape != values.shape:
        raise ValueError(
            f"action_mask must have the shape of what it masks {tuple(values.shape)}, got {tuple(allowed.shape)}; give "
            "one truth value for each action"
        )
    values = at_least_float32(values)
    return values.masked_fill(~allowed, torch.finfo(values.dtype).min)
