"""Divergence from a reference policy, estimated from the actions taken or exact: tensors in, tensors out.

``l`` is the log-probability of the action under the policy, ``l_ref`` under the reference, ``d = l_ref - l``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tesserl_grpo.options import KL_KINDS, KLKind, check_choice


def kl_estimate(log_probs: Tensor, reference_log_probs: Tensor, *, kind: KLKind = "k3") -> Tensor:
    """Estimate ``KL(policy || reference)`` from actions of the policy (Schulman 2020, "Approximating KL divergence").

    - ``k1``: ``-d``; unbiased, of either sign. As a loss it does nothing: the expectation of its gradient is zero.
    - ``k2``: ``d^2 / 2``; biased as a value. The expectation of its gradient is that of the KL itself.
    - ``k3``: ``exp(d) - d - 1`` (DeepSeekMath, equation 4); unbiased, never negative. The expectation of its gradient
      is that of ``KL(reference || policy)``: it pulls as well, but keeps the policy where the reference has mass.

    Args:
        log_probs: of the actions taken, ``[*B]``.
        reference_log_probs: of the same actions under the reference, ``[*B]``.
        kind: which estimate.

    Returns:
        Estimate of each element, in nats, ``[*B]``.

    Raises:
        ValueError: ``kind`` is unknown.
    """
    check_choice("kind", kind, KL_KINDS)
    difference = reference_log_probs - log_probs
    if kind == "k1":
        return -difference
    if kind == "k2":
        return 0.5 * difference**2
    return torch.expm1(difference) - difference


def categorical_kl(logits: Tensor, reference_logits: Tensor) -> Tensor:
    """``sum_a p_a (log p_a - log q_a)`` of two categorical distributions.

    Args:
        logits: of the policy, unnormalised; minus infinity is an action that cannot be taken, ``[*B, A]``.
        reference_logits: of the reference, ``[*B, A]``.

    Returns:
        ``KL(policy || reference)``, in nats, ``[*B]``.
    """
    lowest = torch.finfo(logits.dtype).min  # so that an action which neither takes adds 0 and not infinity - infinity
    log_p = logits.log_softmax(dim=-1).clamp(min=lowest)
    log_q = reference_logits.log_softmax(dim=-1).clamp(min=lowest)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def gaussian_kl(loc: Tensor, scale: Tensor, reference_loc: Tensor, reference_scale: Tensor) -> Tensor:
    """``sum_d log(s_q / s_p) + (s_p^2 + (m_p - m_q)^2) / (2 s_q^2) - 1/2`` of two diagonal Gaussians.

    The same holds of two distributions that one invertible function, such as tanh, makes of them.

    Args:
        loc: mean of the policy, ``[*B, D]``.
        scale: its standard deviation, above 0, ``[*B, D]``.
        reference_loc: mean of the reference, ``[*B, D]``.
        reference_scale: its standard deviation, above 0, ``[*B, D]``.

    Returns:
        ``KL(policy || reference)``, in nats, ``[*B]``.
    """
    ratio = (scale / reference_scale) ** 2
    distance = ((loc - reference_loc) / reference_scale) ** 2
    return 0.5 * (ratio + distance - 1 - ratio.log()).sum(dim=-1)
