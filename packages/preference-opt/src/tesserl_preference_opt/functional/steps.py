"""Sums over the steps of segments, and terms per step: behaviour cloning and values."""

from __future__ import annotations

import torch
from torch import Tensor

from tesserl_policy import masked_mean


def sum_log_probs(log_probs: Tensor, mask: Tensor | None = None, *, discount: float = 1.0) -> tuple[Tensor, Tensor]:
    """Sum log-probs over a segment, ``sum_t discount^t log pi(a_t, s_t)``, and the weights of its steps.

    The sum divided by the weights is the length-normalised log-prob. Without a discount the weights sum to the length.

    Args:
        log_probs: log-probs of the actions, ``[..., T]``; masked ones may have any value.
        mask: bool ``[..., T]``, true on valid steps; None for all.
        discount: weight of a step relative to the step before, in [0, 1]; the first step of the segment has weight 1.

    Returns:
        The sums and the weights, ``[...]`` each.

    Raises:
        ValueError: ``mask`` has another shape, or ``discount`` is out of its range.
    """
    if not 0 <= discount <= 1:
        raise ValueError(f"discount must be in [0, 1], got {discount}")
    if mask is not None:
        if mask.shape != log_probs.shape:
            raise ValueError(
                f"mask must have the shape of log_probs {tuple(log_probs.shape)}, got {tuple(mask.shape)}; "
                "one entry per step"
            )
        log_probs = torch.where(mask, log_probs, 0.0)  # not a product: padding may hold NaN
    if discount == 1:
        sums = log_probs.sum(dim=-1)
        lengths = torch.full_like(sums, log_probs.shape[-1], requires_grad=False) if mask is None else mask.sum(dim=-1)
        return sums, lengths.to(sums.dtype)
    steps = torch.arange(log_probs.shape[-1], device=log_probs.device, dtype=log_probs.dtype)
    weights = (discount**steps).expand_as(log_probs)
    sums = (weights * log_probs).sum(dim=-1)
    return sums, (weights if mask is None else weights * mask).sum(dim=-1)


def pair_weights(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Return WPO's weights of pairs, ``min(exp(chosen + rejected), 1)``.

    Pairs that the policy would not play count less (weighted preference optimisation, Zhou et al. 2024,
    arXiv:2406.11827, equation 2, with the limit of TRL).

    Args:
        chosen: mean over the steps of the chosen segment of ``log pi(a) - log sum_b pi(b)^2``, ``[P]``.
        rejected: that of the rejected segment, ``[P]``.

    Returns:
        Weights in (0, 1], ``[P]``.
    """
    return (chosen + rejected).exp().clamp(max=1.0)


def bc_loss(log_probs: Tensor, mask: Tensor | None = None) -> Tensor:
    """Compute the loss of behaviour cloning: the mean negative log-prob of the actions taken, over valid steps.

    Args:
        log_probs: log-probs of the actions taken, any shape.
        mask: bool, of the same shape, true on valid steps; None for all.

    Returns:
        A scalar, in nats.
    """
    return -masked_mean(log_probs, mask)


def value_loss(value: Tensor, target: Tensor) -> Tensor:
    """Compute half the squared difference between values and returns.

    Args:
        value: predicted returns, in reward units, any shape.
        target: returns, of the same shape.

    Returns:
        The differences, in the same shape.

    Raises:
        ValueError: shapes differ.
    """
    if value.shape != target.shape:
        raise ValueError(f"value must have the shape of its target {tuple(target.shape)}, got {tuple(value.shape)}")
    return 0.5 * (value - target).square()


def deterministic_log_probs(mean: Tensor, action: Tensor) -> Tensor:
    """Compute ``-|mean - action|^2``, a replacement for log-probs of a deterministic policy (CPL's released code).

    Args:
        mean: actions of the policy, ``[*B, D]``.
        action: actions taken, ``[*B, D]``.

    Returns:
        ``[*B]``; those of a Gaussian of variance 1/2 up to a constant.
    """
    return -torch.square(mean - action).sum(dim=-1)
