"""Linear layers with factorised Gaussian noise, which changes only when :func:`reset_noise` draws it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


class NoisyLinear(nn.Module):
    """Linear layer with learned, factorised Gaussian noise on weights and bias.

    Fortunato et al. 2018 (arXiv:1706.10295), equations 9 to 11: ``weight = mu + sigma * f(eps_out) f(eps_in)^T`` and
    ``bias = mu + sigma * f(eps_out)`` with ``f(x) = sign(x) sqrt(|x|)``. Means start uniform in
    ``+-1/sqrt(in_features)``; all sigmas start at ``sigma_init/sqrt(in_features)``. Deviation: the paper's code starts
    the bias sigma at ``sigma_init/sqrt(out_features)``; this layer uses the fan-in for both, like Beyond The Rainbow.

    The noise is zero at first. Only :meth:`reset_noise` and :meth:`zero_noise` change it; forward passes and the
    training mode do not. It may be drawn again between a forward pass and its backward pass. The noise factors are
    buffers and part of the state dict.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        bias: whether there is a bias; it has its own noise.
        sigma_init: initial noise scale before the division by ``sqrt(in_features)``; at least 0.

    Raises:
        ValueError: if a width is below 1 or ``sigma_init`` is negative.
    """

    bias_mu: nn.Parameter | None
    bias_sigma: nn.Parameter | None
    epsilon_in: Tensor
    epsilon_out: Tensor

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, sigma_init: float = 0.5) -> None:
        super().__init__()
        if min(in_features, out_features) < 1:
            raise ValueError(f"NoisyLinear widths must be at least 1, got in {in_features}, out {out_features}")
        if sigma_init < 0:
            raise ValueError(f"sigma_init must be at least 0, got {sigma_init}")
        self.in_features = in_features
        self.out_features = out_features
        self.sigma_init = sigma_init
        self.weight_mu = nn.Parameter(torch.empty(out_features, in_features))
        self.weight_sigma = nn.Parameter(torch.empty(out_features, in_features))
        self.bias_mu = nn.Parameter(torch.empty(out_features)) if bias else None
        self.bias_sigma = nn.Parameter(torch.empty(out_features)) if bias else None
        self.register_buffer("epsilon_in", torch.zeros(in_features))
        self.register_buffer("epsilon_out", torch.zeros(out_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the means again, set the sigmas to their initial values and the noise to zero."""
        bound = 1 / math.sqrt(self.in_features)
        nn.init.uniform_(self.weight_mu, -bound, bound)
        nn.init.constant_(self.weight_sigma, self.sigma_init * bound)
        if self.bias_mu is not None and self.bias_sigma is not None:
            nn.init.uniform_(self.bias_mu, -bound, bound)
            nn.init.constant_(self.bias_sigma, self.sigma_init * bound)
        self.zero_noise()

    @torch.no_grad()
    def reset_noise(self, generator: torch.Generator | None = None) -> None:
        """Draw new noise.

        Args:
            generator: source of randomness. The noise is drawn on its device, so a CPU generator gives the same noise
                for layers on any device. None for the default generator of the layer's device.
        """
        device = self.epsilon_in.device if generator is None else generator.device
        noise = torch.randn(self.in_features + self.out_features, generator=generator, device=device)
        noise = noise.sign() * noise.abs().sqrt()
        self.epsilon_in.copy_(noise[: self.in_features])
        self.epsilon_out.copy_(noise[self.in_features :])

    @torch.no_grad()
    def zero_noise(self) -> None:
        """Set the noise to zero, so that the layer uses the means of its parameters."""
        self.epsilon_in.zero_()
        self.epsilon_out.zero_()

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[*B, in_features]`` to ``[*B, out_features]`` with the current noise."""
        weight = torch.addcmul(self.weight_mu, self.weight_sigma, torch.outer(self.epsilon_out, self.epsilon_in))
        if self.bias_mu is None or self.bias_sigma is None:
            return linear(features, weight)
        # A copy: addcmul keeps the factor for backward, and reset_noise may change it in place before that
        bias = torch.addcmul(self.bias_mu, self.bias_sigma, self.epsilon_out.clone())
        return linear(features, weight, bias)

    def extra_repr(self) -> str:
        """Return the sizes for ``repr``."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{sizes}, bias={self.bias_mu is not None}, sigma_init={self.sigma_init}"


def reset_noise(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw new noise in every :class:`NoisyLinear` of ``module``, itself included.

    Args:
        module: network; one without noisy layers does not change.
        generator: see :meth:`NoisyLinear.reset_noise`.
    """
    for layer in module.modules():
        if isinstance(layer, NoisyLinear):
            layer.reset_noise(generator)


def zero_noise(module: nn.Module) -> None:
    """Set the noise of every :class:`NoisyLinear` of ``module`` to zero, itself included."""
    for layer in module.modules():
        if isinstance(layer, NoisyLinear):
            layer.zero_noise()
