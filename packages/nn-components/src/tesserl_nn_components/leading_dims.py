"""Leading dimensions in rlpyt's sense: none, [B] or [T, B]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor


def infer_leading_dims(tensor: Tensor, data_dims: int) -> tuple[int, int, int, torch.Size]:
    """Find the leading dimensions of ``tensor``: none, ``[B]`` or ``[T, B]``.

    Args:
        tensor: with ``data_dims`` trailing dimensions of data.
        data_dims: e.g. 3 for an image, 1 for a vector.

    Returns:
        (number of leading dimensions, T, B, shape of the data); T and B are 1 where they are missing.

    Raises:
        ValueError: if there are not 0, 1 or 2 leading dimensions.
    """
    num_leading = tensor.dim() - data_dims
    if num_leading not in (0, 1, 2):
        raise ValueError(
            f"tensor must have {data_dims} data dimensions and 0, 1 or 2 leading ones, got shape "
            f"{tuple(tensor.shape)}; flatten the leading dimensions to [T, B] or [B] first"
        )
    time, batch = (1, 1, *tensor.shape[:num_leading])[-2:]
    return num_leading, time, batch, tensor.shape[num_leading:]


@overload
def restore_leading_dims(tensors: Tensor, num_leading: int, T: int = 1, B: int = 1) -> Tensor: ...  # noqa: N803
@overload
def restore_leading_dims(
    tensors: Sequence[Tensor],
    num_leading: int,
    T: int = 1,  # noqa: N803
    B: int = 1,  # noqa: N803
) -> tuple[Tensor, ...]: ...


def restore_leading_dims(
    tensors: Tensor | Sequence[Tensor],
    num_leading: int,
    T: int = 1,  # noqa: N803
    B: int = 1,  # noqa: N803
) -> Tensor | tuple[Tensor, ...]:
    """Reshape results of a flat batch ``[T * B, ...]`` to the leading dimensions of the input.

    Args:
        tensors: one tensor ``[T * B, ...]``, or a sequence of them.
        num_leading: number of leading dimensions, as :func:`infer_leading_dims` returns it, like ``T`` and ``B``.
        T: number of time steps.
        B: batch size.

    Returns:
        ``[...]``, ``[B, ...]`` or ``[T, B, ...]``; a tuple for a sequence.

    Raises:
        ValueError: if ``num_leading`` is not 0, 1 or 2, or the first size is not ``T * B`` (1 for no leading ones).
    """
    if not isinstance(tensors, Tensor):
        return tuple(restore_leading_dims(tensor, num_leading, T, B) for tensor in tensors)
    shapes: dict[int, tuple[int, ...]] = {0: (), 1: (B,), 2: (T, B)}
    if num_leading not in shapes:
        raise ValueError(f"num_leading must be 0, 1 or 2, got {num_leading}")
    expected = 1 if num_leading == 0 else B if num_leading == 1 else T * B
    if tensors.shape[:1] != (expected,):
        raise ValueError(
            f"tensor must have first size {expected} (num_leading={num_leading}, T={T}, B={B}), "
            f"got shape {tuple(tensors.shape)}"
        )
    return tensors.reshape(shapes[num_leading] + tuple(tensors.shape[1:]))  # a scalar result becomes 0-d, as in rlpyt
