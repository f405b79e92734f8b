"""Exact divergences between two policies of one kind, for ``torch.distributions.kl_divergence``.

Shapes: ``*B`` any batch shape. A divergence is that of the whole action, in nats, ``[*B]``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import kl

from tesserl_actor_critic.distributions import Categorical, DiagonalNormal, MultiCategorical, TanhNormal
from tesserl_actor_critic.distributions.discrete import sum_of

_register: Any = kl.register_kl  # untyped


@_register(Categorical, Categorical)
def categorical_kl(policy: Categorical, other: Categorical) -> Tensor:
    """``sum_a p(a) (log p(a) - log q(a))``, summed over action blocks.

    Args:
        policy: ``p``.
        other: ``q``.

    Returns:
        Divergence, ``[*B]``.
    """
    divergence = _of_choice(policy.log_policy, other.log_policy)
    return divergence.sum(dim=-1) if policy.event_shape else divergence


@_register(MultiCategorical, MultiCategorical)
def multi_categorical_kl(policy: MultiCategorical, other: MultiCategorical) -> Tensor:
    """Sum of the divergences of the choices, which are independent.

    Args:
        policy: ``p``.
        other: ``q``.

    Returns:
        Divergence, ``[*B]``.
    """
    return sum_of([_of_choice(*pair) for pair in zip(policy.log_policies, other.log_policies, strict=True)])


@_register(DiagonalNormal, DiagonalNormal)
def normal_kl(policy: DiagonalNormal, other: DiagonalNormal) -> Tensor:
    """``sum_d log(sigma_q / sigma_p) + (sigma_p^2 + (mu_p - mu_q)^2) / (2 sigma_q^2) - 1/2``.

    Args:
        policy: ``p``.
        other: ``q``.

    Returns:
        Divergence, ``[*B]``.
    """
    ratio = (policy.scale / other.scale).square()
    shift = ((policy.loc - other.loc) / other.scale).square()
    return 0.5 * (ratio + shift - 1 - ratio.log()).sum(dim=-1)


@_register(TanhNormal, TanhNormal)
def tanh_normal_kl(policy: TanhNormal, other: TanhNormal) -> Tensor:
    """Return the divergence of the two Gaussians; squashing both into the same bounds does not change it.

    Args:
        policy: ``p``.
        other: ``q``, with the bounds of ``p``.

    Returns:
        Divergence, ``[*B]``.
    """
    return normal_kl(policy.base, other.base)


def _of_choice(log_policy: Tensor, other: Tensor) -> Tensor:
    return torch.sum(log_policy.exp() * (log_policy - other), dim=-1)
