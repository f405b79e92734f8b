"""Change networks after gradient steps: target updates, and partial resets against the loss of plasticity."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torchrl.objectives import TargetNetUpdater

from tesserl_iqn.network import QuantileNetwork
from tesserl_nn_components import NoisyLinear, SpectralConv2d

if TYPE_CHECKING:
    from tesserl_iqn.loss import IQNLoss


class TargetUpdater(TargetNetUpdater):
    """Move the target network of a loss, as torchrl's ``SoftUpdate`` and ``HardUpdate`` do, in less time.

    torchrl's updaters take half the time of a small update. A hard copy also copies the vectors of spectral norms with
    their weights. Unlike torchrl's updaters, this one copies nothing when it is made. Make it after the loss is on its
    device.

    Args:
        loss_module: loss with the online and the target network.
        interval: gradient steps between two updates, at least 1.
        rate: fraction of ``theta' <- theta' + rate (theta - theta')``, in (0, 1]; None for a hard copy.

    Raises:
        ValueError: ``interval`` or ``rate`` is out of its range.
    """

    def __init__(self, loss_module: IQNLoss, *, interval: int = 1, rate: float | None = None) -> None:
        if interval < 1 or not (rate is None or 0 < rate <= 1):
            raise ValueError(f"interval must be at least 1 and rate in (0, 1] or None, got {interval} and {rate}")
        super().__init__(loss_module)
        self.interval, self.rate, self.counter = interval, rate, 0
        networks = loss_module.value_network, loss_module.target_value_network
        self._online, self._target = ([parameter.data for parameter in network.parameters()] for network in networks)
        if rate is None:  # with the singular vectors: otherwise the next passes would use those of the old weights
            self._online += _singular_vectors(networks[0])
            self._target += _singular_vectors(networks[1])

    def init_(self) -> None:
        """Leave the target as it is; torchrl's updaters copy the online network to it."""
        self.initialized = True

    def step(self) -> None:
        """Count a gradient step, and update if the interval is over."""
        self.counter += 1
        self.update(self.counter)

    def update(self, updates: int) -> None:
        """Update if the number of gradient steps is a multiple of the interval.

        Args:
            updates: gradient steps so far.
        """
        if updates % self.interval:
            return
        if self.rate is None:
            torch._foreach_copy_(self._target, self._online)
        else:
            torch._foreach_lerp_(self._target, self._online, self.rate)


def _singular_vectors(network: nn.Module) -> list[Tensor]:
    """Return the vectors of all layers under spectral norm."""
    layers = [module for module in network.modules() if isinstance(module, SpectralConv2d)]
    return [vector for layer in layers for vector in (layer.u, layer.v)]


@dataclass
class PeriodicReset:
    """Move both networks of a loss towards new weights at intervals, see `shrink_and_perturb`.

    Args:
        loss: loss with both networks.
        fresh: function that makes a new network of the same architecture, with torch's global generator.
        interval: gradient steps between two resets, at least 1.
        factor: fraction by which weights move, in [0, 1].
        last_layer_factor: fraction by which weights of the last layers move, in [0, 1].
        optimizer: optimiser of the online network.

    Raises:
        ValueError: ``interval`` is below 1.
    """

    loss: IQNLoss
    fresh: Callable[[], QuantileNetwork]
    interval: int
    factor: float = 0.01
    last_layer_factor: float = 0.8
    optimizer: Optimizer | None = None

    def __post_init__(self) -> None:
        """Check the interval."""
        if self.interval < 1:
            raise ValueError(f"interval of resets must be at least 1, got {self.interval}")

    def update(self, updates: int) -> None:
        """Reset if the number of gradient steps is a multiple of the interval.

        Args:
            updates: gradient steps so far.
        """
        if updates % self.interval == 0:
            shrink_and_perturb(
                (self.loss.value_network, self.loss.target_value_network),
                self.fresh(),
                factor=self.factor,
                last_layer_factor=self.last_layer_factor,
                optimizer=self.optimizer,
            )


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

    This is equation 1 of Ash & Adams 2020 (arXiv:1910.08475), with a fresh initialisation as its noise. As in Nikishin
    et al. 2022 (arXiv:2205.07802), the last layers have a separate factor, and target networks move too. Frozen
    parameters stay. Vectors of power iterations are computed again.

    Args:
        networks: the online network first, then its target; of one architecture, changed in place.
        fresh: a new network of the same architecture.
        factor: fraction by which weights move, in [0, 1].
        last_layer_factor: fraction by which weights of `last_layers` move, in [0, 1].
        optimizer: optimiser of the online network. The first moment (momentum) of a parameter shrinks by its factor;
            the second moment, which scales its steps, stays.

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
        if (
            learning is None
        ):  # parameters of a target never need gradients; those of the online network show which ones learn
            learning = {name for name, parameter in parameters.items() if parameter.requires_grad}
        for name in learning:
            amount = last_layer_factor if name in last else factor
            parameters[name].lerp_(source[name].to(parameters[name]), amount)
            state = {} if optimizer is None else optimizer.state.get(parameters[name], {})
            for moment in ("exp_avg", "momentum_buffer"):  # of the Adam family, and of SGD
                if state.get(moment) is not None:
                    state[moment].mul_(1 - amount)
        for module in network.modules():
            if isinstance(module, SpectralConv2d):
                module.power_iteration(15)


@torch.no_grad()
def reset_parameters(network: nn.Module) -> None:
    """Draw the weights of a network anew.

    Args:
        network: a network in which every module with parameters has ``reset_parameters``.

    Raises:
        TypeError: a module with parameters has no ``reset_parameters``; nothing is changed.
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
    """Return the dotted names of the last linear layer of each stream of a network's head."""
    streams = [f"head.{name}" for name, _ in network.head.named_children() if name in ("advantage", "value")]
    found: list[str] = []
    for stream in streams or ["head"]:
        modules = network.get_submodule(stream).named_modules(prefix=stream)
        found += [name for name, module in modules if isinstance(module, nn.Linear | NoisyLinear)][-1:]
    return found
