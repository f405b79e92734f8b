"""Orthogonal initialisation with named gains."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from tesserl_nn_components.spectral import SpectralConv2d

_GAINS = {"relu": math.sqrt(2), "tanh": 5 / 3, "policy": 0.01, "value": 1.0}


@torch.no_grad()
def orthogonal_init(module: nn.Module, gain: float | Literal["relu", "tanh", "policy", "value"] = "relu") -> nn.Module:
    """Give every linear and convolution layer of ``module`` orthogonal weights and zero biases.

    Saxe et al. 2014 (arXiv:1312.6120). :class:`NoisyLinear` keeps its own initialisation.

    Args:
        module: network or single layer, changed in place.
        gain: factor of the weights. ``"relu"`` is sqrt(2) and ``"tanh"`` 5/3, for layers before these activations;
            ``"policy"`` is 0.01 and ``"value"`` 1, for the last layers of an actor and a critic (Andrychowicz et al.
            2021, arXiv:2006.05990, recommend a hundred times smaller weights in the last policy layer).

    Returns:
        The module.

    Raises:
        ValueError: if ``gain`` is a name that is not listed above.
    """
    if isinstance(gain, str) and gain not in _GAINS:
        raise ValueError(f"gain must be a number or one of {sorted(_GAINS)}, got {gain!r}")
    factor = _GAINS[gain] if isinstance(gain, str) else gain
    for layer in module.modules():
        if not isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
            continue
        # With a parametrization (spectral norm) the trained tensor is `original`; `weight` is computed from it
        parametrizations = getattr(layer, "parametrizations", None)
        nn.init.orthogonal_(layer.weight if parametrizations is None else parametrizations.weight.original, factor)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        if isinstance(layer, SpectralConv2d):
            layer.power_iteration(15)  # update the singular vectors to the new weight
    return module
