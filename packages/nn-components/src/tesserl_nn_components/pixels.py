"""Conversion of images to the input of convolutions: floating point, four dimensions."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from tesserl_nn_components.precision import under_autocast

PixelRange = Literal["unit", "symmetric", "centered"]


def scale_pixels(pixels: Tensor, dtype: torch.dtype, pixel_range: PixelRange = "unit") -> Tensor:
    """Convert uint8 pixels to floating point; return floating point pixels unchanged.

    Args:
        pixels: image, any shape, uint8 or floating point.
        dtype: dtype of the result for uint8 input.
        pixel_range: ``"unit"`` maps 0..255 to [0, 1], ``"symmetric"`` to [-1, 1], ``"centered"`` to (x - 128) / 128 in
            [-1, 127/128].

    Returns:
        A tensor of the same shape; never a view that shares memory with uint8 input.

    Raises:
        TypeError: if ``pixels`` is neither uint8 nor floating point.
    """
    if pixels.dtype == torch.uint8:
        # In place is safe: the conversion made a copy
        if pixel_range == "unit":
            return pixels.to(dtype).div_(255)
        if pixel_range == "centered":
            return pixels.to(dtype).sub_(128).div_(128)  # exact in every dtype
        return pixels.to(dtype).sub_(127.5).div_(127.5)  # the difference is exact in bfloat16 too
    if pixels.is_floating_point():
        return pixels
    raise TypeError(
        f"pixels must be uint8 (scaled inside) or floating point (taken as they are), got {pixels.dtype}; "
        "convert them with .to(torch.uint8) or .float()"
    )


def scale_pixels_for(convolutions: nn.Module, pixels: Tensor, pixel_range: PixelRange = "unit") -> Tensor:
    """Call `scale_pixels` with the dtype and the memory format of the convolutions that follow.

    Otherwise the convolutions convert float32 input themselves, and again in the backward pass. This takes two fifths
    of the time of the Nature CNN's first layer in ``channels_last``.

    Args:
        convolutions: module that contains at least one convolution.
        pixels: image, ``[*B, C, H, W]``, uint8 or floating point.
        pixel_range: see `scale_pixels`.

    Returns:
        A tensor of the same shape. Under autocast, scaled pixels have autocast's dtype, and the convolution returns the
        same values as if it had converted them itself.
    """
    weight = next(parameter for parameter in convolutions.parameters() if parameter.dim() == 4)
    dtype, kind = weight.dtype, pixels.device.type
    if dtype is torch.float32 and under_autocast(kind):
        dtype = torch.get_autocast_dtype(kind)
    if pixels.dtype is torch.uint8 and pixels.dim() == 4 and not weight.is_contiguous():
        pixels = pixels.contiguous(memory_format=torch.channels_last)
    return scale_pixels(pixels, dtype, pixel_range)


def check_image_shape(image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return ``(channels, height, width)`` as ints, or raise an error."""
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(f"image_shape must be (channels, height, width), all at least 1, got {tuple(image_shape)}")
    channels, height, width = image_shape
    return int(channels), int(height), int(width)


def check_pixel_range(pixel_range: str) -> None:
    """Raise ValueError unless ``pixel_range`` is known."""
    if pixel_range not in ("unit", "symmetric", "centered"):
        raise ValueError(
            'pixel_range must be "unit" ([0, 1]), "symmetric" ([-1, 1]) or "centered" ((x - 128) / 128), '
            f"got {pixel_range!r}"
        )


def as_image_batch(pixels: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
    """Return images ``[*B, C, H, W]`` as one batch ``[prod(B), C, H, W]``."""
    if not isinstance(pixels, Tensor):
        raise TypeError(f"pixels must be a tensor, got {type(pixels).__name__}; convert them with torch.as_tensor")
    if pixels.shape[-3:] != image_shape:
        raise ValueError(
            f"pixels must end in (channels, height, width) = {image_shape}, got shape {tuple(pixels.shape)}; "
            "images are channels first"
        )
    return pixels if pixels.dim() == 4 else pixels.reshape(math.prod(pixels.shape[:-3]), *image_shape)


def random_crop(pixels: Tensor, padding: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Shift each image at random: pad it by repeating its edges, then crop a window of the original size.

    DrQ (Kostrikov et al. 2021, arXiv:2004.13649), section 3.1. Each element of the batch gets its own random shift.

    Args:
        pixels: images of any dtype, ``[*B, C, H, W]``; the channels of an image move together.
        padding: pixels added on each side, at least 0: the largest shift in each direction (DrQ: 4 for 84 x 84 images).
        generator: source of randomness; None for torch's global generator.

    Returns:
        New images of the same shape and dtype.

    Raises:
        ValueError: if ``padding`` is negative or ``pixels`` has fewer than three axes.
    """
    if padding < 0 or pixels.dim() < 3:
        raise ValueError(
            f"padding must be at least 0 and pixels [*B, C, H, W], got {padding} and shape {tuple(pixels.shape)}"
        )
    images = pixels.reshape(-1, *pixels.shape[-3:])
    shifts = torch.randint(-padding, padding + 1, (2, len(images), 1), generator=generator, device=pixels.device)
    rows, columns = (
        (torch.arange(size, device=pixels.device) + shift).clamp_(0, size - 1)
        for size, shift in zip(images.shape[-2:], shifts, strict=True)
    )
    element = torch.arange(len(images), device=pixels.device)[:, None, None]
    # indexing with three tensors around a slice puts [B, H, W] first and the channels last
    shifted = images[element, :, rows[:, :, None], columns[:, None, :]]
    return shifted.movedim(-1, 1).reshape(pixels.shape)
