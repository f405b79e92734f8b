"""Call small layers for less than what the call of a module costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules import module as torch_module

_ACTIVATIONS: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {nn.ReLU: torch.relu, nn.Tanh: torch.tanh}
_has_any_global_hook: Callable[[], object] = torch_module._has_any_global_hook  # untyped


def run_layers(layers: Iterable[nn.Module], features: Tensor) -> Tensor:
    """Call layers one after the other.

    Plain linear layers, ReLU and tanh without hooks are computed here: on small batches the call of a module takes as
    long as its work.

    Args:
        layers: each maps a tensor to a tensor.
        features: input of the first.

    Returns:
        The output of the last.
    """
    for layer in layers:
        activation = _ACTIVATIONS.get(type(layer))
        if is_observed(layer):
            features = layer(features)
        elif type(layer) is nn.Linear:  # a parametrised layer has a class of its own
            parameters = layer._parameters  # not as attributes, whose look-up is a call of Python
            features = functional.linear(features, parameters["weight"], parameters["bias"])  # type: ignore[arg-type]
        elif activation is not None:
            features = activation(features)
        else:
            features = layer(features)
    return features


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
