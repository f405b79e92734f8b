"""Exact KL divergences between distributions of the same class, for ``torch.distributions.kl_divergence``.

Shapes: ``*B`` any batch shape. Divergences are those of whole actions, in nats, ``[*B]``.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.distributions import kl

from tesserl_actor_critic.distributions import Categorical, DiagonalNormal, MultiCategorical, TanhNormal
from tesserl_actor_critic.distributions.discrete import sum_of
from tesserl_policy import categorical_kl, gaussian_kl

_register: Any = kl.register_kl  # untyped


@_register(Categorical, Categorical)
def _categorical_kl(policy: Categorical, other: Categorical) -> Tensor:
    """Sum the divergences of the action blocks, ``[*B]``."""
    divergence = categorical_kl(policy.log_policy, other.log_policy)
    return divergence.sum(dim=-1) if policy.event_shape else divergence


@_register(MultiCategorical, MultiCategorical)
def _multi_categorical_kl(policy: MultiCategorical, other: MultiCategorical) -> Tensor:
    """Sum the divergences of the independent choices, ``[*B]``."""
    return sum_of([categorical_kl(*pair) for pair in zip(policy.log_policies, other.log_policies, strict=True)])


@_register(DiagonalNormal, DiagonalNormal)
def _normal_kl(policy: DiagonalNormal, other: DiagonalNormal) -> Tensor:
    """Return the divergence of two Gaussians with independent dimensions, ``[*B]``."""
    return gaussian_kl(policy.loc, policy.scale, other.loc, other.scale)


@_register(TanhNormal, TanhNormal)
def _tanh_normal_kl(policy: TanhNormal, other: TanhNormal) -> Tensor:
    """Return the divergence of the two Gaussians, ``[*B]``: squashing both into the same bounds does not change it."""
    return _normal_kl(policy.base, other.base)
