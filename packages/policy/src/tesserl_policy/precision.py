"""Compute in float32 where inputs are in half precision."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a tensor, converted to float32 if it is in half precision.

    Args:
        tensor: any shape and dtype.

    Returns:
        The tensor, in the same shape.
    """
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
