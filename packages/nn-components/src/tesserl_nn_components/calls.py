"""Run small layers with less overhead than ``nn.Module.__call__``."""

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
    """Run layers one after the other.

    Plain linear layers, ReLU and tanh without hooks are computed directly, because calling a module takes as long as
    its computation on small batches. Without a gradient the activation overwrites the output of its linear layer, to
    save memory.

    Args:
        layers: each maps a tensor to a tensor.
        features: input of the first layer.

    Returns:
        The output of the last layer.
    """
    is_hooked, activations = _has_any_global_hook(), _ACTIVATIONS
    for layer in layers:
        kind = type(layer)
        if is_hooked or has_own_hook(layer):
            features, activations = layer(features), _ACTIVATIONS
        elif kind is nn.Linear:  # a parametrised layer has another class
            parameters = layer._parameters  # faster than attributes, which nn.Module looks up in Python
            features = functional.linear(features, parameters["weight"], parameters["bias"])  # type: ignore[arg-type]
            # with a gradient the output may be a view; writing into a view costs two more kernels
            activations = _ACTIVATIONS if features.requires_grad else _IN_PLACE
        elif kind in activations:
            features = activations[kind](features)
        else:
            features, activations = layer(features), _ACTIVATIONS
    return features


def child(module: nn.Module, name: str) -> Any:
    """Return a submodule, in a sixth of the time of an attribute access.

    Args:
        module: any module.
        name: name of one of its submodules.
    """
    return module._modules[name]


def run(module: nn.Module, *inputs: Tensor) -> Any:
    """Return ``module(*inputs)``; call ``forward`` directly if the module has no hooks, which is faster.

    Args:
        module: any module.
        *inputs: arguments of its ``forward``.
    """
    return module(*inputs) if is_observed(module) else module.forward(*inputs)


def is_observed(layer: nn.Module) -> bool:
    """Return whether a layer has hooks (its own or global ones) or overrides ``forward`` on the instance.

    Args:
        layer: any module.
    """
    return has_own_hook(layer) or bool(_has_any_global_hook())


def has_own_hook(layer: nn.Module) -> bool:
    """Return whether a layer has its own hooks or overrides ``forward`` on the instance; global hooks do not count.

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
