"""Distributions over vectors: Gaussians with independent dimensions, unbounded or squashed by tanh into bounds.

Shapes: ``*B`` any batch shape, ``D`` action dimensions.
Log-densities and entropies are sums over the dimensions, ``[*B]``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn import functional

from tesserl_policy import at_least_float32


class DiagonalNormal(Distribution):
    """A Gaussian with independent dimensions.

    Args:
        loc: means, ``[*B, D]``.
        scale: standard deviations, ``[*B, D]``, above 0.
    """

    arg_constraints = {}  # noqa: RUF012 (torch's name)
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        self.loc, self.scale = at_least_float32(loc), at_least_float32(scale)
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean, ``[*B, D]``."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """The mean, ``[*B, D]``."""
        return self.loc

    deterministic_sample = mode  # torchrl's name of it

    @property
    def stddev(self) -> Tensor:
        """The standard deviations, ``[*B, D]``."""
        return self.scale

    @property
    def variance(self) -> Tensor:
        """The variances, ``[*B, D]``."""
        return self.scale.square()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw reparameterised actions: gradients flow through them to the parameters.

        Args:
            sample_shape: shape of the draws.

        Returns:
            Actions, ``[*sample_shape, *B, D]``.
        """
        noise = torch.randn((*sample_shape, *self.loc.shape), dtype=self.loc.dtype, device=self.loc.device)
        return torch.addcmul(self.loc, self.scale, noise)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of actions.

        Args:
            value: actions, ``[*B, D]``; leading dimensions may be added.

        Returns:
            Log-density, ``[*B]``.
        """
        standardised = (value - self.loc) / self.scale
        constant = 0.5 * math.log(2 * math.pi) * self.loc.shape[-1]
        return -(0.5 * standardised.square() + self.scale.log()).sum(dim=-1) - constant

    def entropy(self) -> Tensor:
        """Return the differential entropy in nats, ``[*B]``."""
        return self.scale.log().sum(dim=-1) + 0.5 * (1 + math.log(2 * math.pi)) * self.loc.shape[-1]

    def log_mean_density(self) -> Tensor:
        """Return the log of the mean density of a drawn action: ``log`` of the integral of ``pi(a)^2``, ``[*B]``."""
        return -self.scale.log().sum(dim=-1) - 0.5 * math.log(4 * math.pi) * self.loc.shape[-1]


class TanhNormal(Distribution):
    """A Gaussian squashed by tanh into bounds.

    An action is ``low + (high - low) * (1 + tanh(u)) / 2`` with ``u`` from a Gaussian. The log-density always
    recomputes ``u`` from the action, when acting and when training, so that both agree. An action at a bound counts as
    the closest action to it that floating point can represent (``|u|`` = 8.3 in float32).

    Args:
        loc: means of ``u``, ``[*B, D]``.
        scale: standard deviations of ``u``, ``[*B, D]``, above 0.
        low: lower bounds, ``[D]``.
        high: upper bounds, ``[D]``, above ``low``.
    """

    arg_constraints = {}  # noqa: RUF012 (torch's name)
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> None:
        self.base = DiagonalNormal(loc, scale)
        low, high = low.to(self.base.loc), high.to(self.base.loc)
        self.center, self.half_range = (high + low) / 2, (high - low) / 2
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    @property
    def mode(self) -> Tensor:
        """The squashed mean, ``[*B, D]``, which is the median. For large scales the true mode is at a bound."""
        return self._squash(self.base.loc)

    deterministic_sample = mode  # torchrl's name of it

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw reparameterised actions: gradients flow through them to the parameters.

        Args:
            sample_shape: shape of the draws.

        Returns:
            Actions in the bounds, ``[*sample_shape, *B, D]``.
        """
        return self._squash(self.base.rsample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of actions.

        Args:
            value: actions in the bounds, ``[*B, D]``; leading dimensions may be added.

        Returns:
            Log-density, ``[*B]``.
        """
        squashed = (value - self.center) / self.half_range
        limit = 1 - torch.finfo(squashed.dtype).eps
        raw = torch.atanh(squashed.clamp(-limit, limit))
        return self.base.log_prob(raw) - (_log_tanh_slope(raw) + self.half_range.log()).sum(dim=-1)

    def entropy(self) -> Tensor:
        """Return the differential entropy in nats, ``[*B]``.

        It is the entropy of the Gaussian plus the mean log-slope of the squashing. This mean has no closed form.
        Gauss-Hermite quadrature with 32 nodes approximates it to 0.01 per dimension for scales up to 3, without random
        numbers, and is differentiable.
        """
        nodes, weights = _NODES.to(self.base.loc), _WEIGHTS.to(self.base.loc)
        raw = self.base.loc.unsqueeze(-1) + self.base.scale.unsqueeze(-1) * nodes
        slope = (_log_tanh_slope(raw) * weights).sum(dim=-1)
        return self.base.entropy() + (slope + self.half_range.log()).sum(dim=-1)

    def _squash(self, raw: Tensor) -> Tensor:
        return torch.addcmul(self.center, self.half_range, torch.tanh(raw))


def _gauss_hermite(num_nodes: int) -> tuple[Tensor, Tensor]:
    """Return the quadrature nodes and weights of a standard normal distribution (Golub & Welsch 1969)."""
    side = torch.arange(1, num_nodes, dtype=torch.float64).sqrt()
    nodes, vectors = torch.linalg.eigh(side.diag(1) + side.diag(-1))
    return nodes, vectors[0].square()


_NODES, _WEIGHTS = _gauss_hermite(32)


def _log_tanh_slope(raw: Tensor) -> Tensor:
    """Return ``log(1 - tanh(u)^2)`` in a form that neither cancels nor overflows."""
    return 2 * (math.log(2) - raw - functional.softplus(-2 * raw))
