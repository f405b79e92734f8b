"""Explain why a layer rejects an input. Called only after torch has raised, so a valid input costs nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def explain_features(features: Any, width: int, dtype: torch.dtype | None, name: str = "features") -> None:
    """Raise an error that explains an invalid input of a linear layer; return if the input is valid."""
    if not isinstance(features, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(features).__name__}; convert it with torch.as_tensor")
    if features.shape[-1:] != (width,):
        raise ValueError(
            f"{name} must have the shape [*B, {width}], got {tuple(features.shape)}; give the number of features that "
            "the network was built for"
        )
    if dtype is not None and features.dtype != dtype:
        raise TypeError(
            f"{name} must be {dtype} like the weights, got {features.dtype}; convert it with .to({dtype}), or the "
            "network with .to"
        )
