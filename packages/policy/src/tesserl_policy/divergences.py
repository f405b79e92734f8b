"""Exact divergences between two policies.

Shapes: ``*B`` any batch shape, ``A`` actions, ``D`` action dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor


def categorical_kl(log_policy: Tensor, reference_log_policy: Tensor) -> Tensor:
    """Return ``KL(p || q) = sum_a p_a (log p_a - log q_a)`` of two categorical distributions.

    Args:
        log_policy: ``log p`` of all actions, normalised (``log_softmax``); minus infinity for an action that cannot be
            taken, ``[*B, A]``.
        reference_log_policy: ``log q`` of all actions, ``[*B, A]``.

    Returns:
        Divergence, in nats, ``[*B]``.
    """
    lowest = torch.finfo(log_policy.dtype).min  # an action that neither policy takes adds 0, not infinity - infinity
    log_policy, reference_log_policy = log_policy.clamp(min=lowest), reference_log_policy.clamp(min=lowest)
    return (log_policy.exp() * (log_policy - reference_log_policy)).sum(dim=-1)


def gaussian_kl(loc: Tensor, scale: Tensor, reference_loc: Tensor, reference_scale: Tensor) -> Tensor:
    """Return ``KL(p || q)`` of two diagonal Gaussians.

    ``sum_d log(s_q / s_p) + (s_p^2 + (m_p - m_q)^2) / (2 s_q^2) - 1/2``. An invertible function applied to both, such
    as tanh, does not change the divergence.

    Args:
        loc: means of ``p``, ``[*B, D]``.
        scale: standard deviations of ``p``, above 0, ``[*B, D]``.
        reference_loc: means of ``q``, ``[*B, D]``.
        reference_scale: standard deviations of ``q``, above 0, ``[*B, D]``.

    Returns:
        Divergence, in nats, ``[*B]``.
    """
    ratio = (scale / reference_scale) ** 2
    distance = ((loc - reference_loc) / reference_scale) ** 2
    return 0.5 * (ratio + distance - 1 - ratio.log()).sum(dim=-1)
