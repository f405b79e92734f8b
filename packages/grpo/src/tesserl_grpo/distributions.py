"""Compute exact divergences of distributions of torch and torchrl, and of registered distributions."""

from __future__ import annotations

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

from tesserl_policy import categorical_kl, gaussian_kl


def exact_kl(distribution: Distribution, reference: Distribution, num_dims: int) -> Tensor:
    """Compute ``KL(policy || reference)`` of two distributions of the same kind, summed over the parts of an action.

    This works for categorical and Gaussian policies of torch and torchrl (also squashed by tanh, one-hot or in several
    dimensions), and for distributions registered with ``torch.distributions.kl.register_kl``.

    Args:
        distribution: distribution of the policy.
        reference: distribution of the reference, of the same class.
        num_dims: number of batch dimensions.

    Returns:
        Divergence in nats, of the batch shape.

    Raises:
        TypeError: no divergence is registered for these two.
    """
    divergence: Tensor
    policy_base, reference_base = _base(distribution), _base(reference)
    if isinstance(policy_base, Categorical | OneHotCategorical) and isinstance(reference_base, type(policy_base)):
        divergence = categorical_kl(policy_base.logits.log_softmax(dim=-1), reference_base.logits.log_softmax(dim=-1))
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
    return divergence.flatten(num_dims).sum(dim=-1) if divergence.dim() > num_dims else divergence


def _base(distribution: Distribution) -> Distribution:
    """Return the distribution inside shifts, squashings and joint dimensions; none of them changes the divergence."""
    while isinstance(distribution, Independent | TransformedDistribution):
        distribution = distribution.base_dist
    return distribution
