"""Freezing parts of a network for good."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


class _StaysInEval:
    """Takes the place of a frozen module's ``train``; a class, so that the module can be pickled and copied."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, *_mode: bool) -> nn.Module:
        """Leave the module in evaluation mode, whatever the mode asked for."""
        return self.module


def freeze(module: nn.Module, names: Iterable[str]) -> None:
    """Freeze parts of ``module``: no gradient, and evaluation mode for good.

    A frozen part stays in evaluation mode when :meth:`torch.nn.Module.train` is called on the module above it, so its
    dropout stays off and its statistics (batch norm, running normalisation, spectral norm) stay as they are.

    Args:
        module: network that holds the parts.
        names: dotted names of submodules or of single parameters, e.g. ``["vision", "vector.mlp"]``.

    Raises:
        ValueError: if a name is not a submodule or a parameter; nothing is frozen then.
    """
    modules, parameters = dict(module.named_modules()), dict(module.named_parameters())
    names = list(names)
    unknown = [name for name in names if not name or (name not in modules and name not in parameters)]
    if unknown:
        children = [name for name, _ in module.named_children()]
        raise ValueError(f"cannot freeze {unknown}: {type(module).__name__} has no such part; its parts are {children}")
    for name in names:
        if name in parameters:
            parameters[name].requires_grad_(False)
            continue
        modules[name].requires_grad_(False)
        for part in modules[name].modules():
            part.training = False
            part.__dict__["train"] = _StaysInEval(part)
