"""The residual image encoder of IMPALA and Beyond The Rainbow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from tesserl_nn_components.conv import conv2d_output_shape
from tesserl_nn_components.pixels import (
    PixelRange,
    as_image_batch,
    check_image_shape,
    check_pixel_range,
    scale_pixels_for,
)
from tesserl_nn_components.spectral import SpectralConv2d

SpectralNorm = Literal["none", "residual", "all"]


class ImpalaCNN(nn.Module):
    """Three stages (by default) of convolution, max-pooling and two residual blocks.

    Espeholt et al. 2018 (arXiv:1802.01561), figure 3, without the final linear layer. Beyond The Rainbow (Clark et al.
    2024, arXiv:2411.03820) is ``width=2, pool_size=6, spectral_norm="residual"``.

    Args:
        image_shape: (channels, height, width).
        channels: output channels of each stage, before ``width``.
        width: multiplies all ``channels``.
        pool_size: side to which the last feature map is max-pooled, for any image size; entries repeat if the map is
            smaller. None for no pooling.
        spectral_norm: convolutions with spectral normalisation: ``"none"``, those of the ``"residual"`` blocks, or
            ``"all"``.
        pixel_range: scaling of uint8 input: ``"unit"`` to [0, 1], ``"symmetric"`` to [-1, 1], ``"centered"`` to
            ``(x - 128) / 128``.

    Raises:
        ValueError: if an argument is out of its range.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        channels: Sequence[int] = (16, 32, 32),
        width: int = 1,
        pool_size: int | None = None,
        spectral_norm: SpectralNorm = "none",
        pixel_range: PixelRange = "unit",
    ) -> None:
        super().__init__()
        check_pixel_range(pixel_range)
        if spectral_norm not in ("none", "residual", "all"):
            raise ValueError(f'spectral_norm must be "none", "residual" or "all", got {spectral_norm!r}')
        if not channels or min(*channels, width, 1 if pool_size is None else pool_size) < 1:
            raise ValueError(
                "channels (at least one of them), width and pool_size must be at least 1, "
                f"got {channels=}, {width=}, {pool_size=}"
            )
        self.in_keys = ["pixels"]
        self.image_shape = check_image_shape(image_shape)
        self.pixel_range = pixel_range
        fan_in, height, breadth = self.image_shape
        stages: list[nn.Module] = []
        for stage_channels in channels:
            stages.append(_Stage(fan_in, stage_channels * width, spectral_norm))
            fan_in = stage_channels * width
            height, breadth = conv2d_output_shape(height, breadth, 3, 2, 1)
        self.stages = nn.Sequential(*stages)
        self.pool = nn.Identity() if pool_size is None else nn.AdaptiveMaxPool2d(pool_size)
        self.out_shape = (fan_in, height, breadth) if pool_size is None else (fan_in, pool_size, pool_size)
        self.out_features = math.prod(self.out_shape)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map images ``[*B, C, H, W]``, uint8 or floating point, to features ``[*B, out_features]``."""
        images = as_image_batch(pixels, self.image_shape)
        features = self.pool(self.stages(scale_pixels_for(self.stages, images, self.pixel_range)))
        features = torch.relu(features.flatten(1))
        return features if pixels.dim() == 4 else features.reshape(*pixels.shape[:-3], self.out_features)


class _Stage(nn.Module):
    """Convolution, max-pooling that halves the size, two residual blocks."""

    def __init__(self, in_channels: int, out_channels: int, spectral_norm: SpectralNorm) -> None:
        super().__init__()
        self.conv = _conv(in_channels, out_channels, spectral_norm == "all")
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.blocks = nn.Sequential(*(_ResidualBlock(out_channels, spectral_norm != "none") for _ in range(2)))

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[B, in_channels, H, W]`` to ``[B, out_channels, ceil(H / 2), ceil(W / 2)]``."""
        return self.blocks(self.pool(self.conv(features)))


class _ResidualBlock(nn.Module):
    """ReLU, convolution, ReLU, convolution, plus the input."""

    def __init__(self, channels: int, spectral: bool) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels, spectral)
        self.conv2 = _conv(channels, channels, spectral)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[B, channels, H, W]`` to the same shape."""
        # In place: nothing else uses the first convolution's output
        return features + self.conv2(torch.relu_(self.conv1(torch.relu(features))))


def _conv(in_channels: int, out_channels: int, spectral: bool) -> nn.Conv2d:
    """Return a 3 x 3 convolution that keeps height and width."""
    if spectral:
        return SpectralConv2d(in_channels, out_channels, 3, padding=1)
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)
