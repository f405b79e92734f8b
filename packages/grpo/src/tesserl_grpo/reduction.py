"""Reduce the losses of steps to one number: the weight of each step in an update. Tensors in, tensors out."""

from __future__ import annotations

import torch
from torch import Tensor

from tesserl_grpo.options import Reduction, check_reduction


def step_weights(
    mask: Tensor,
    *,
    reduction: Reduction = "grpo",
    max_length: int | None = None,
    normalizer: float | Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return the weight of each step in an update, whose loss is ``sum(weight * loss of the step)``.

    - ``grpo``: mean over trajectories of the means over their steps, ``1 / (P length_p)``.
    - ``dapo``: mean over all valid steps, ``1 / sum_p length_p`` (DAPO, equation 8): long trajectories count more.
    - ``dr_grpo``: ``1 / (P max_length)`` (Dr. GRPO, arXiv:2503.20783): a step counts the same in every update.
    - ``none``: 1.

    ``P`` counts the trajectories with a valid step. Compute the weights once for a whole update, then divide them into
    minibatches, padded or flat. The losses of the minibatches sum to the loss of the update. If each minibatch is a
    separate optimiser step, multiply the weights by the number of minibatches.

    Args:
        mask: true on valid steps, ``[P, T]``.
        reduction: one of those above.
        max_length: longest trajectory that the task allows, in steps; required for ``dr_grpo``.
        normalizer: divisor for a ``mask`` that is only a part of an update: the number of trajectories of the whole
            update (``grpo``, ``dr_grpo``), or of its valid steps (``dapo``).
        dtype: floating dtype of the result; default: torch's.

    Returns:
        Weights, 0 outside the mask, ``[P, T]``.

    Raises:
        ValueError: ``reduction`` is unknown, ``max_length`` is missing, or ``mask`` has no dimension of trajectories.
    """
    check_reduction(reduction, max_length)
    weights = mask.to(dtype or torch.get_default_dtype())
    if reduction == "none":
        return weights
    if reduction == "dapo":
        return weights / (mask.sum().clamp(min=1) if normalizer is None else normalizer)
    if mask.dim() < 2:
        raise ValueError(
            f"reduction {reduction} needs trajectories [P, T], got a flat batch {tuple(mask.shape)}; take step_weights "
            "of the whole update before it is flattened, or reduction dapo"
        )
    lengths = mask.sum(dim=-1, keepdim=True)
    num_trajectories = (lengths > 0).sum().clamp(min=1) if normalizer is None else normalizer
    return weights / num_trajectories / (lengths.clamp(min=1) if reduction == "grpo" else max_length or 1)


def reduce_steps(
    values: Tensor,
    mask: Tensor | None,
    *,
    reduction: Reduction = "grpo",
    max_length: int | None = None,
    normalizer: float | Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Reduce a value of each step as `step_weights` says.

    Args:
        values: such as the loss of each step, ``[P, T]``.
        mask: true on valid steps, ``[P, T]``; None: all are valid.
        reduction: see `step_weights`.
        max_length: see `step_weights`.
        normalizer: see `step_weights`.
        weights: see `group_policy_loss`.

    Returns:
        Scalar, or ``[P, T]`` with zeros outside the mask for ``"none"``.

    Raises:
        ValueError: see `step_weights`.
    """
    if reduction == "none":
        return values if mask is None else torch.where(mask, values, 0.0)
    if weights is not None:
        weights = weights.to(values.dtype)  # 0 outside the mask
        return torch.dot(values, weights) if values.dim() == 1 else (values * weights).sum()
    if mask is None:
        if reduction == "dapo" and normalizer is None:
            return values.mean()
        mask = torch.ones_like(values, dtype=torch.bool)
    weights = step_weights(mask, reduction=reduction, max_length=max_length, normalizer=normalizer, dtype=values.dtype)
    return (torch.where(mask, values, 0.0) * weights).sum()
