"""Periodic partial reset: weights move towards those of a fresh network, against the loss of plasticity."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from tesserl_iqn.network import QuantileNetwork
from tesserl_nn_components import NoisyLinear, SpectralConv2d


@torch.no_grad()
def shrink_and_perturb(
    networks: Iterable[QuantileNetwork],
    fresh: QuantileNetwork,
    *,
    factor: float = 0.01,
    last_layer_factor: float = 0.8,
    optimizer: Optimizer | None = None,
) -> None:
    """Move the weights of networks towards those of a fresh one: ``theta <- (1 - factor) theta + factor theta_fresh``.

    Ash & Adams 2020 (arXiv:1910.08475), equation 1, whose noise is a fresh initialisation here; the last layers have a
    factor of their own, and target networks move too, as in Nikishin et al. 2022 (arXiv:2205.07802). Parameters that do
    not learn stay. Vectors of power iterations are brought up to date.

    Args:
        networks: the online network first, then its target; of one architecture, changed in place.
        fresh: a newly made network of the same architecture.
        factor: how far weights move, in [0, 1].
        last_layer_factor: how far those of `last_layers` move, in [0, 1].
        optimizer: of the online network: the first moment (momentum) of a parameter shrinks as it does. The second one,
            which scales its steps, stays.

    Raises:
        ValueError: a factor is out of its range, or the networks differ in their parameters.
    """
    if not (0 <= factor <= 1 and 0 <= last_layer_factor <= 1):
        raise ValueError(f"factor and last_layer_factor must be in [0, 1], got {factor} and {last_layer_factor}")
    source = dict(fresh.named_parameters())
    last = {
        f"{layer}.{name}" for layer in last_layers(fresh) for name, _ in fresh.get_submodule(layer).named_parameters()
    }
    learning: set[str] | None = None
    for network in networks:
        parameters = dict(network.named_parameters())
        if {name: value.shape for name, value in parameters.items()} != {k: v.shape for k, v in source.items()}:
            raise ValueError(
                "fresh must have the parameters of the networks, got others; build it from the same options"
            )
        if learning is None:  # a target's parameters never need a gradient; the online network says which ones learn
            learning = {name for name, parameter in parameters.items() if parameter.requires_grad}
        for name in learning:
            amount = last_layer_factor if name in last else factor
            parameters[name].lerp_(source[name].to(parameters[name]), amount)
            state = {} if optimizer is None else optimizer.state.get(parameters[name], {})
            for moment in ("exp_avg", "momentum_buffer"):  # of Adam's kin, and of SGD
                if state.get(moment) is not None:
                    state[moment].mul_(1 - amount)
        for module in network.modules():
            if isinstance(module, SpectralConv2d):
                module.power_iteration(15)


@torch.no_grad()
def reset_parameters(network: nn.Module) -> None:
    """Draw the weights of a network anew.

    Args:
        network: each module with parameters of its own has ``reset_parameters``.

    Raises:
        TypeError: a module with parameters has no ``reset_parameters``; nothing is changed then.
    """
    modules = list(network.named_modules())
    for name, module in modules:
        if not hasattr(module, "reset_parameters") and next(module.parameters(recurse=False), None) is not None:
            raise TypeError(
                f"every module with parameters must have reset_parameters, got none in {name or 'the network'}, a "
                f"{type(module).__name__}; add the method, or build a new network"
            )
    for _, module in modules:
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
        if isinstance(module, SpectralConv2d):
            module.power_iteration(15)


def last_layers(network: QuantileNetwork) -> list[str]:
    """Return the dotted names of the last linear layer of each stream of a network's head.

    Args:
        network: the network.
    """
    streams = [name for name in ("head.advantage", "head.value") if _has(network, name)] or ["head"]
    found: list[str] = []
    for stream in streams:
        layers = [
            name
            for name, module in network.get_submodule(stream).named_modules(prefix=stream)
            if isinstance(module, nn.Linear | NoisyLinear)
        ]
        found += layers[-1:]
    return found


def _has(network: nn.Module, name: str) -> bool:
    outer, _, inner = name.rpartition(".")
    return isinstance(getattr(network.get_submodule(outer), inner, None), nn.Module)
