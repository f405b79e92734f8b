"""Call small layers for less than what the call of a module costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules import module as torch_module

_ACTIVATIONS: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {nn.ReLU: torch.relu, nn.Tanh: torch.tanh}
_has_any_global_hook: Callable[[], object] = torch_module._has_any_global_hook  # untyped


def call(layer: nn.Module, features: Tensor) -> Tensor:
    """Return ``layer(features)``.

    A plain linear layer, ReLU or tanh without hooks is computed here: on small batches the call of the module takes as
    long as its work.

    Args:
        layer: maps a tensor to a tensor.
        features: its input.
    """
    if not is_observed(layer):
        if type(layer) is nn.Linear:  # a parametrised layer has a class of its own
            return functional.linear(features, layer.weight, layer.bias)
        activation = _ACTIVATIONS.get(type(layer))
        if activation is not None:
            return activation(features)
    result: Tensor = layer(features)
    return result


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
    return bool(
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or "forward" in layer.__dict__
        or _has_any_global_hook()
    )
