"""Compressed pictures of steps, small enough to store with the steps.

A picture is a PNG of at most 64 colours, padded by zeros to `FRAME_BYTES` bytes. So it is a tensor of fixed size like
other entries of a step: uint8 ``[FRAME_BYTES]``.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

FRAME_BYTES = 2048
"""CartPole at 240 x 160 pixels takes 600 bytes, LunarLander 1,000; CarRacing, with 3,000, gets fewer colours."""

FRAME_SIZE = 240
"""Length of the longer side in pixels."""


def encode_frame(picture: NDArray[Any]) -> Tensor:
    """Compress a picture.

    Args:
        picture: ``[H, W, 3]`` or ``[H, W]``; uint8, or numbers in [0, 1].

    Returns:
        uint8 ``[FRAME_BYTES]``.

    Raises:
        ValueError: the array is not a picture.
    """
    from PIL import Image  # optional dependency

    if picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] != 3) or 0 in picture.shape:
        raise ValueError(f"a picture must have the shape [H, W, 3] or [H, W], got {list(picture.shape)}")
    if picture.dtype != np.uint8:
        picture = (np.clip(picture, 0.0, 1.0) * 255).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(picture)).convert("RGB")
    size = FRAME_SIZE
    while True:
        scaled = _scaled(image, size)
        for num_colors in (64, 32, 16, 8):
            content = _png(scaled, num_colors)
            if len(content) <= FRAME_BYTES:
                return torch.frombuffer(bytearray(content.ljust(FRAME_BYTES, b"\0")), dtype=torch.uint8)
        size = size * 2 // 3


def frame_png(frame: Tensor) -> bytes:
    """Return the PNG file in a tensor of ``encode_frame``; a PNG ends with a non-zero byte, so zeros are padding."""
    return frame.numpy().tobytes().rstrip(b"\0")


def _scaled(image: Image.Image, size: int) -> Image.Image:
    from PIL import Image

    factor = size / max(image.size)
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BOX)


def _png(image: Image.Image, num_colors: int) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    palette = image.quantize(num_colors, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    palette.save(buffer, "PNG", optimize=False)
    return buffer.getvalue()
