"""The precision that distributions compute in."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a tensor, converted to float32 where it is in half precision.

    Args:
        tensor: of any shape and dtype.

    Returns:
        It, in the same shape.
    """
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
