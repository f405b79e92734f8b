"""Freeze named parts of a network, or give them their own learning rates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn


class _StaysInEval:
    """Replacement of a frozen module's ``train``; a class, so that the module can be pickled and copied."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, *_mode: bool) -> nn.Module:
        """Keep the module in evaluation mode and ignore the requested mode."""
        return self.module


def freeze(module: nn.Module, names: Iterable[str]) -> None:
    """Freeze parts of ``module``: disable their gradients and keep them in evaluation mode.

    A frozen part stays in evaluation mode when :meth:`torch.nn.Module.train` is called on a module that contains it. So
    its dropout stays off and its statistics (batch norm, running normalisation, spectral norm) do not change.

    Args:
        module: network that holds the parts.
        names: dotted names of submodules or of single parameters, e.g. ``["vision", "vector.mlp"]``.

    Raises:
        ValueError: if a name is not a submodule or a parameter; then nothing is frozen.
    """
    for part in _parts_of(module, names, "freeze").values():
        part.requires_grad_(False)
        if isinstance(part, nn.Module):
            for inner in part.modules():
                inner.training = False
                inner.__dict__["train"] = _StaysInEval(inner)


def parameter_groups(module: nn.Module, factors: Mapping[str, float], lr: float) -> list[dict[str, Any]]:
    """Return parameter groups for a ``torch.optim`` optimiser, with a learning rate for each part.

    Every parameter that requires a gradient is in exactly one group: the group of the innermost named part that
    contains it, or the last group, ``"rest"``. Frozen parameters are in no group, so they have no optimiser state.

    Args:
        module: network that holds the parts.
        factors: learning rate of each part divided by ``lr``, positive, e.g. ``{"vision": 0.1}``. Keys are dotted names
            of submodules or single parameters, as in :func:`freeze`.
        lr: learning rate of all other parameters; positive.

    Returns:
        Groups with ``params``, ``lr`` and ``name``, in the order of ``factors``; ``"rest"`` is last and left out if
        empty.

    Raises:
        ValueError: if a name is not a part, a number is not positive and finite, or a group would be empty because all
            its parameters are frozen or belong to other named parts.
    """
    parts = _parts_of(module, factors, "give a learning rate to")
    wrong = [f"{name}={value}" for name, value in (("lr", lr), *factors.items()) if not 0 < value < math.inf]
    if wrong:
        raise ValueError(f"lr and the factors of parts must be positive and finite, got {wrong}; freeze a part instead")
    free = {id(parameter): parameter for parameter in module.parameters() if parameter.requires_grad}
    found: dict[str, list[nn.Parameter]] = {}
    for name in sorted(factors, key=lambda name: -name.count(".")):  # inner parts first
        part = parts[name]
        inside = part.parameters() if isinstance(part, nn.Module) else [part]
        found[name] = [free.pop(id(parameter)) for parameter in inside if id(parameter) in free]
        if not found[name]:
            raise ValueError(
                f"part {name!r} must have parameters of its own with a gradient, got none; they are frozen or belong "
                f"to other parts of {list(factors)}: leave it out"
            )
    groups: list[dict[str, Any]] = [
        {"params": found[name], "lr": lr * factor, "name": name} for name, factor in factors.items()
    ]
    return [*groups, {"params": list(free.values()), "lr": lr, "name": "rest"}] if free else groups


def _parts_of(module: nn.Module, names: Iterable[str], action: str) -> dict[str, nn.Module | nn.Parameter]:
    """Return the submodules and parameters with these names."""
    known: dict[str, nn.Module | nn.Parameter] = dict(module.named_parameters(remove_duplicate=False))
    known.update(module.named_modules(remove_duplicate=False))
    names = list(names)
    unknown = [name for name in names if not name or name not in known]
    if unknown:
        children = [name for name, _ in module.named_children()]
        raise ValueError(
            f"cannot {action} {unknown}: {type(module).__name__} has no such part; its parts are {children}"
        )
    return {name: known[name] for name in names}
