"""REINFORCE with a baseline (Williams 1992), as an algorithm of Tesserl's trainer and as a separate loss."""

from importlib import import_module
from typing import Any

__all__ = ["ReinforceLoss"]


def __getattr__(name: str) -> Any:
    """Import the loss on first use, so that reading the declaration imports no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.loss"), name)
