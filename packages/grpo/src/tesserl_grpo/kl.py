"""Estimate the KL divergence from a reference policy on the actions taken: tensors in, tensors out.

``l`` is the log-probability of the action under the policy, ``l_ref`` under the reference, ``d = l_ref - l``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tesserl_grpo.options import KL_KINDS, KLKind, check_choice


def kl_estimate(log_probs: Tensor, reference_log_probs: Tensor, *, kind: KLKind = "k3") -> Tensor:
    """Estimate ``KL(policy || reference)`` from actions of the policy (Schulman 2020, "Approximating KL divergence").

    - ``k1``: ``-d``; unbiased, of either sign. Useless as a loss: its expected gradient is zero.
    - ``k2``: ``d^2 / 2``; biased as a value. Its expected gradient is the gradient of ``KL(policy || reference)``.
    - ``k3``: ``exp(d) - d - 1`` (DeepSeekMath, equation 4); unbiased, never negative. Its expected gradient is the
      gradient of ``KL(reference || policy)``, which keeps the policy where the reference has probability.

    Args:
        log_probs: log-probabilities of the actions taken, ``[*B]``.
        reference_log_probs: those of the same actions under the reference, ``[*B]``.
        kind: one of the three above.

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
