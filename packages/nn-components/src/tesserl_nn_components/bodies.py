"""The interface of a body: the attributes that heads and networks around it read."""

from __future__ import annotations

from typing import cast

from torch import nn


def require_body(module: nn.Module) -> None:
    """Reject a module that is not a body.

    Args:
        module: a body has ``in_keys``, the names of its inputs, and ``out_features``, the width of its output.

    Raises:
        TypeError: one of the two is missing.
    """
    for name in ("in_keys", "out_features"):
        if not hasattr(module, name):
            raise TypeError(
                f"body must have {name}, got {type(module).__name__} without it; "
                'set body.in_keys, such as ["observation"], and body.out_features, the width of its output'
            )


def width_of(module: nn.Module) -> int:
    """Return ``out_features``, the width of the features that a module returns.

    Args:
        module: a body, or layers between a body and its heads.
    """
    return cast("int", module.out_features)
