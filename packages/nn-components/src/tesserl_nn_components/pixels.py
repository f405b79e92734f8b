"""Images as convolutions want them: floating point, four dimensions."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

PixelRange = Literal["unit", "symmetric"]


def scale_pixels(pixels: Tensor, dtype: torch.dtype, pixel_range: PixelRange = "unit") -> Tensor:
    """Turn uint8 pixels into floating point; floating point pixels are returned as they are.

    Args:
        pixels: image, any shape, uint8 or floating point.
        dtype: dtype of the result for uint8 input.
        pixel_range: ``"unit"`` maps 0..255 to [0, 1], ``"symmetric"`` to [-1, 1].

    Returns:
        A tensor of the same shape; never a view that shares memory with uint8 input.

    Raises:
        TypeError: if ``pixels`` is neither uint8 nor floating point.
    """
    if pixels.dtype == torch.uint8:
        # The conversion made a copy, so dividing in place touches nobody else's tensor
        if pixel_range == "unit":
            return pixels.to(dtype).div_(255)
        return pixels.to(dtype).div_(127.5).sub_(1)
    if pixels.is_floating_point():
        return pixels
    raise TypeError(
        f"pixels must be uint8 (scaled inside) or floating point (taken as they are), got {pixels.dtype}; "
        "convert them with .to(torch.uint8) or .float()"
    )


def check_image_shape(image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return ``(channels, height, width)`` as ints.

    Raises:
        ValueError: if there are not three positive sizes.
    """
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(f"image_shape must be (channels, height, width), all at least 1, got {tuple(image_shape)}")
    channels, height, width = image_shape
    return int(channels), int(height), int(width)


def check_pixel_range(pixel_range: str) -> None:
    """Raise ValueError unless ``pixel_range`` is a known one."""
    if pixel_range not in ("unit", "symmetric"):
        raise ValueError(f'pixel_range must be "unit" ([0, 1]) or "symmetric" ([-1, 1]), got {pixel_range!r}')


def as_image_batch(pixels: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
    """Return images ``[*B, C, H, W]`` as one batch ``[prod(B), C, H, W]``.

    Raises:
        ValueError: if the last three sizes are not ``image_shape``.
    """
    if pixels.shape[-3:] != image_shape:
        raise ValueError(
            f"pixels must end in (channels, height, width) = {image_shape}, got shape {tuple(pixels.shape)}; "
            "images are channels first"
        )
    return pixels if pixels.dim() == 4 else pixels.reshape(math.prod(pixels.shape[:-3]), *image_shape)
