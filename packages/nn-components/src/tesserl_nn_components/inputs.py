"""Say why a layer cannot take an input: called after torch has failed, so that it costs nothing otherwise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def explain_features(features: Any, width: int, dtype: torch.dtype | None, name: str = "features") -> None:
    """Raise an error that says what is wrong with the input of a linear layer; return if nothing is."""
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
