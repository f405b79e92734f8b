"""Padded segments and their mask."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import NestedKey, TensorDictBase
from torch import Tensor


@dataclass(frozen=True)
class Segments:
    """Padded segments ``[P, T]``."""

    steps: TensorDictBase
    mask: Tensor  # bool [P, T], true on valid steps


def read_segments(tensordict: TensorDictBase, mask_key: NestedKey, name: str = "segments") -> Segments:
    """Read padded segments and their mask.

    Args:
        tensordict: the segments, ``[P, T]``.
        mask_key: key of the mask. If it is missing, torchrl's ``("collector", "mask")`` is used; if this is missing
            too, all steps are valid.
        name: name of the segments in messages.

    Returns:
        The segments.

    Raises:
        ValueError: the segments are not ``[P, T]``, or the mask has another shape.
    """
    shape = tensordict.batch_size
    if len(shape) != 2:
        raise ValueError(f"{name} must have the batch shape [P, T], got {tuple(shape)}; pad segments to one length")
    mask = tensordict.get(mask_key, None)
    mask = tensordict.get(("collector", "mask"), None) if mask is None else mask
    if mask is None:
        mask = torch.ones(shape, dtype=torch.bool, device=tensordict.device)
    elif mask.shape not in (shape, (*shape, 1)):
        raise ValueError(f"mask of {name} must have the shape {tuple(shape)}, got {tuple(mask.shape)}")
    return Segments(tensordict, mask.reshape(shape).bool())
