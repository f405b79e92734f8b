"""Call small layers for less than what the call of a module costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules import module as torch_module

_ACTIVATIONS: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {nn.ReLU: torch.relu, nn.Tanh: torch.tanh}
_IN_PLACE: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {nn.ReLU: torch.relu_, nn.Tanh: torch.tanh_}
_has_any_global_hook: Callable[[], object] = torch_module._has_any_global_hook  # untyped


def run_layers(layers: Iterable[nn.Module], features: Tensor) -> Tensor:
    """Call layers one after the other.

    Plain linear layers, ReLU and tanh without hooks are computed here: on small batches the call of a module takes as
    long as its work. Without gradient an activation is written over the output of its linear layer, which saves memory.

    Args:
        layers: each maps a tensor to a tensor.
        features: input of the first.

    Returns:
        The output of the last.
    """
    is_hooked, activations = _has_any_global_hook(), _ACTIVATIONS
    for layer in layers:
        kind = type(layer)
        if is_hooked or has_own_hook(layer):
            features, activations = layer(features), _ACTIVATIONS
        elif kind is nn.Linear:  # a parametrised layer has a class of its own
            parameters = layer._parameters  # not as attributes, whose look-up is a call of Python
            features = functional.linear(features, parameters["weight"], parameters["bias"])  # type: ignore[arg-type]
            # with a gradient the output may be a view, on which it would cost two more kernels to write
            activations = _ACTIVATIONS if features.requires_grad else _IN_PLACE
        elif kind in activations:
            features = activations[kind](features)
        else:
            features, activations = layer(features), _ACTIVATIONS
    return features


def child(module: nn.Module, name: str) -> Any:
    """Return a submodule for a sixth of the time that its look-up as an attribute takes.

    Args:
        module: any module.
        name: of a submodule that it has.
    """
    return module._modules[name]


def run(module: nn.Module, *inputs: Tensor) -> Any:
    """Return ``module(*inputs)``, without the cost of a module's call where nothing is hooked to it.

    Args:
        module: any module.
        *inputs: of its ``forward``.
    """
    return module(*inputs) if is_observed(module) else module.forward(*inputs)


def is_observed(layer: nn.Module) -> bool:
    """Return whether a call of a layer does more than its class says: it has hooks, or a ``forward`` of its own.

    Args:
        layer: any module.
    """
    return has_own_hook(layer) or bool(_has_any_global_hook())


def has_own_hook(layer: nn.Module) -> bool:
    """Return whether a layer has hooks or a ``forward`` of its own; hooks of all modules are not asked for.

    Args:
        layer: any module.
    """
    return bool(
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or "forward" in layer.__dict__
    )
