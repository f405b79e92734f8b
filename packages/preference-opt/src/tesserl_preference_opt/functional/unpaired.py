"""Losses of single segments that are labelled good or bad."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor
from torch.nn.functional import softplus

UnpairedLossType = Literal["kto", "apo_zero_unpaired", "bco"]
UNPAIRED_LOSS_TYPES = get_args(UnpairedLossType)


def kto_loss(
    policy: Tensor,
    reference: Tensor,
    desirable: Tensor,
    kl: Tensor | float,
    *,
    beta: float | Tensor = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Compute the loss of single good or bad segments (KTO, Ethayarajh et al. 2024, arXiv:2402.01306, eq. 8).

    With ``r`` the log-ratio, the loss is ``1 - sigmoid(beta (r - kl))`` for good segments and
    ``1 - sigmoid(beta (kl - r))`` for bad ones. The weights balance unequal numbers: keep weight times number of each
    kind within 1 to 4/3 of the other. With ``kl = 0`` it is APO-zero (D'Oosterlinck et al. 2024, arXiv:2408.06266).

    Args:
        policy: summed log-probs, ``[P]``.
        reference: those of the reference, without gradient, ``[P]``.
        desirable: whether a segment is good: bool, or a probability in [0, 1], ``[P]``.
        kl: reference point ``z0``, at least 0 and without gradient, a scalar: the mean log-ratio of mismatched actions.
        beta: strength of the pull towards the reference, above 0.
        desirable_weight: weight of good segments.
        undesirable_weight: weight of bad ones.

    Returns:
        Loss of each segment, ``[P]``.

    Raises:
        ValueError: shapes differ, or beta is out of its range.
    """
    _check(policy, reference, desirable, beta)
    gain = beta * (policy - reference - kl)
    probability = desirable.to(gain.dtype)
    good, bad = desirable_weight * (-gain).sigmoid(), undesirable_weight * gain.sigmoid()
    return probability * good + (1 - probability) * bad


def bco_loss(
    policy: Tensor,
    reference: Tensor,
    desirable: Tensor,
    shift: Tensor | float,
    *,
    beta: float | Tensor = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Compute the loss of single segments as a classification (BCO, Jung et al. 2024, arXiv:2404.04656, equation 9).

    With ``r`` the log-ratio, the loss is ``-log sigmoid(beta r - shift)`` for good segments and
    ``-log sigmoid(shift - beta r)`` for bad ones.

    Args:
        policy: summed log-probs, ``[P]``.
        reference: those of the reference, without gradient, ``[P]``.
        desirable: whether a segment is good: bool, or a probability in [0, 1], ``[P]``.
        shift: mean of the rewards ``beta r`` seen so far, without gradient, a scalar.
        beta: strength of the pull towards the reference, above 0.
        desirable_weight: weight of good segments.
        undesirable_weight: weight of bad ones.

    Returns:
        Loss of each segment, ``[P]``.

    Raises:
        ValueError: shapes differ, or beta is out of its range.
    """
    _check(policy, reference, desirable, beta)
    gain = beta * (policy - reference) - shift
    probability = desirable.to(gain.dtype)
    return probability * desirable_weight * softplus(-gain) + (1 - probability) * undesirable_weight * softplus(gain)


def _check(policy: Tensor, reference: Tensor, desirable: Tensor, beta: float | Tensor) -> None:
    if not isinstance(beta, Tensor) and not beta > 0:
        raise ValueError(f"beta must be above 0, got {beta}")
    if policy.dim() != 1 or reference.shape != policy.shape or desirable.shape != policy.shape:
        shapes = [tuple(each.shape) for each in (policy, reference, desirable)]
        raise ValueError(f"policy, reference and desirable must be of one shape [P], got {', '.join(map(str, shapes))}")
