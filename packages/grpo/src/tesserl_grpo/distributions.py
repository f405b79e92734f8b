"""Read entropies and divergences from a distribution of torch, of torchrl, or of any policy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    Normal,
    OneHotCategorical,
    TransformedDistribution,
    kl_divergence,
)

from tesserl_grpo.kl import categorical_kl, gaussian_kl


def joint_log_prob(policy: Distribution, action: Tensor, batch_shape: Sequence[int]) -> Tensor:
    """Log-probability of whole actions.

    Args:
        policy: the distribution at each step.
        action: what was done at each step, ``[*B, ...]``.
        batch_shape: ``*B``.

    Returns:
        Log-probabilities, in float32 or wider, ``[*B]``.

    Raises:
        TypeError: actions of a categorical policy are not integers.
        ValueError: the distribution gives something else than one for each step.
    """
    if isinstance(policy, Categorical) and action.is_floating_point():  # torch would cut 0.5 to 0
        raise TypeError(
            f"actions must be what the policy's Categorical draws, got {action.dtype}; convert with .long()"
        )
    try:
        log_probs: Tensor = policy.log_prob(action)
    except (IndexError, RuntimeError) as error:
        raise ValueError(
            f"actions must be what the policy's {type(policy).__name__} draws, got {action.dtype} of shape "
            f"{tuple(action.shape)}: {error}"
        ) from error
    if log_probs.shape != batch_shape:
        # more dimensions may be parts of an action, if the distribution has them too; else they come of broadcasting
        if log_probs.shape != policy.batch_shape or log_probs.shape[: len(batch_shape)] != batch_shape:
            raise ValueError(
                f"the policy must give one log-probability for each step {tuple(batch_shape)}, got "
                f"{tuple(log_probs.shape)} for actions {tuple(action.shape)}; drop singleton dimensions of the action"
            )
        log_probs = _sum_events(log_probs, len(batch_shape))
    return _wide(log_probs)


def joint_entropy(policy: Distribution, num_dims: int) -> Tensor:
    """Entropy of whole actions; where there is no formula, an estimate from one draw.

    Args:
        policy: the distribution at each step.
        num_dims: number of batch dimensions.

    Returns:
        Entropies in nats, in float32 or wider, ``[*B]``.
    """
    try:
        entropy = policy.entropy()
    except NotImplementedError:  # such as torchrl's Gaussian squashed by tanh
        entropy = -policy.log_prob(policy.rsample())
    return _wide(_sum_events(entropy, num_dims))


def exact_kl(distribution: Distribution, reference: Distribution, num_dims: int) -> Tensor:
    """``KL(policy || reference)`` of two distributions of the same kind, summed over everything that makes one action.

    Categorical and Gaussian policies of torch and torchrl, also squashed by tanh, one-hot or in several dimensions; and
    whatever has been registered with ``torch.distributions.kl.register_kl``.

    Args:
        distribution: of the policy.
        reference: of the reference, of the same class.
        num_dims: number of batch dimensions.

    Returns:
        Divergence in nats, of the batch shape.

    Raises:
        TypeError: nobody knows the divergence of these two.
    """
    divergence: Tensor
    policy_base, reference_base = _base(distribution), _base(reference)
    if isinstance(policy_base, Categorical | OneHotCategorical) and isinstance(reference_base, type(policy_base)):
        divergence = categorical_kl(policy_base.logits, reference_base.logits)
    elif isinstance(policy_base, Normal) and isinstance(reference_base, Normal):
        parameters = (policy_base.loc, policy_base.scale, reference_base.loc, reference_base.scale)
        divergence = gaussian_kl(*(parameter.unsqueeze(-1) for parameter in parameters))
    else:
        try:
            divergence = kl_divergence(distribution, reference)
        except NotImplementedError as error:
            raise TypeError(
                f"exact KL is known for categorical and Gaussian policies of torch, got {type(distribution)}; register "
                "it with torch.distributions.kl.register_kl, or use kl_kind k3"
            ) from error
    return _sum_events(divergence, num_dims)


def _base(distribution: Distribution) -> Distribution:
    """Return the distribution inside shifts, squashings and joint dimensions; none of them changes the divergence."""
    while isinstance(distribution, Independent | TransformedDistribution):
        distribution = distribution.base_dist
    return distribution


def _sum_events(values: Tensor, num_dims: int) -> Tensor:
    """Sum what belongs to one action, the dimensions behind the batch's: ``[*B, ...]`` to ``[*B]``."""
    return values.flatten(num_dims).sum(dim=-1) if values.dim() > num_dims else values


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
