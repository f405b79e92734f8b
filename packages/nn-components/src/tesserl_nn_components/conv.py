"""Convolution stacks and their output sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, TypedDict

from torch import Tensor, nn

from tesserl_nn_components.mlp import MLP, Activation, as_sizes
from tesserl_nn_components.pixels import (
    PixelRange,
    as_image_batch,
    check_image_shape,
    check_pixel_range,
    scale_pixels_for,
)
from tesserl_nn_components.spectral import Size, SpectralConv2d


def conv2d_output_shape(
    h: int, w: int, kernel_size: Size = 1, stride: Size = 1, padding: Size = 0, dilation: Size = 1
) -> tuple[int, int]:
    """Return height and width after a convolution or pooling layer.

    ``floor((n + 2 padding - dilation (kernel_size - 1) - 1) / stride) + 1`` for each axis, as in ``torch.nn.Conv2d``.

    Args:
        h: input height in pixels.
        w: input width in pixels.
        kernel_size: int or (height, width), like ``stride``, ``padding`` and ``dilation``.
        stride: step of the window, in pixels.
        padding: zeros added on both sides.
        dilation: distance between the kernel's elements.

    Returns:
        (height, width) of the output.

    Raises:
        ValueError: if an output size is below 1.
    """
    sizes = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(
            (h, w), _pair(kernel_size), _pair(stride), _pair(padding), _pair(dilation), strict=True
        )
    )
    if min(sizes) < 1:
        raise ValueError(
            f"output size must be at least 1 x 1, got {sizes[0]} x {sizes[1]} from input {h} x {w} with "
            f"kernel_size={kernel_size}, stride={stride}, padding={padding}, dilation={dilation}; "
            "use a larger image, a smaller kernel or more padding"
        )
    return sizes[0], sizes[1]


class ConvSizes(TypedDict):
    """Sizes of a stack; unpack them into :class:`Conv2dStack` or :class:`Conv2dHead`."""

    channels: tuple[int, ...]
    kernel_sizes: tuple[int, ...]
    strides: tuple[int, ...]


# Mnih et al. 2015 (doi:10.1038/nature14236); 84 x 84 pixels give 3136 features
NATURE_CNN: ConvSizes = {"channels": (32, 64, 64), "kernel_sizes": (8, 4, 3), "strides": (4, 2, 1)}
# Four layers for smaller images; 64 x 64 pixels give 512 features
COMPACT_CNN: ConvSizes = {"channels": (16, 32, 64, 32), "kernel_sizes": (4, 4, 3, 3), "strides": (2, 2, 2, 1)}


class Conv2dStack(nn.Module):
    """Convolutions with an activation after each one.

    It behaves like rlpyt's ``Conv2dModel``. With ``use_maxpool`` every convolution has stride 1. Where its entry of
    ``strides`` is above 1, a max-pool with this kernel size and stride follows the activation.

    Args:
        in_channels: channels of the input.
        channels: output channels of each convolution.
        kernel_sizes: one entry per convolution; int or (height, width).
        strides: one entry per convolution; int or (height, width).
        paddings: one entry per convolution; None for no padding.
        activation: makes the activation module.
        use_maxpool: downsample by max-pooling instead of strides.
        dilations: one entry per convolution; None for 1.
        pixel_range: scaling of uint8 input: ``"unit"`` to [0, 1], ``"symmetric"`` to [-1, 1], ``"centered"`` to
            ``(x - 128) / 128``.
        pool_size: side to which the last feature map is max-pooled, at most its own side; None for no pooling.
        spectral_norm: convolutions with spectral normalisation: ``"none"`` or ``"all"``, see :class:`SpectralConv2d`.
        layer_norm: put a LayerNorm between each convolution and its activation. It normalises over channels and
            positions of an image, with a scale and a shift per channel (a GroupNorm of one group).

    Raises:
        ValueError: if the sequences are empty or differ in length, or an option is out of its range.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        kernel_sizes: Sequence[Size],
        strides: Sequence[Size],
        paddings: Sequence[Size] | None = None,
        *,
        activation: Activation = nn.ReLU,
        use_maxpool: bool = False,
        dilations: Sequence[Size] | None = None,
        pixel_range: PixelRange = "unit",
        pool_size: int | None = None,
        spectral_norm: Literal["none", "all"] = "none",
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        check_pixel_range(pixel_range)
        if spectral_norm not in ("none", "all") or (pool_size is not None and pool_size < 1):
            raise ValueError(
                f'spectral_norm must be "none" or "all" and pool_size None or at least 1, got {spectral_norm!r} and '
                f"{pool_size}"
            )
        paddings = [0] * len(channels) if paddings is None else paddings
        dilations = [1] * len(channels) if dilations is None else dilations
        lengths = [len(channels), len(kernel_sizes), len(strides), len(paddings), len(dilations)]
        if len(set(lengths)) != 1 or not channels:
            raise ValueError(
                "channels, kernel_sizes, strides, paddings and dilations must have one entry per convolution, "
                f"at least one, got lengths {lengths}"
            )
        layers: list[nn.Module] = []
        fan_in = in_channels
        for width, kernel, stride, padding, dilation in zip(
            channels, kernel_sizes, strides, paddings, dilations, strict=True
        ):
            step = 1 if use_maxpool else stride
            if spectral_norm == "all":
                layers.append(SpectralConv2d(fan_in, width, kernel, padding, stride=step, dilation=dilation))
            else:
                layers.append(nn.Conv2d(fan_in, width, kernel, step, padding, dilation))
            layers += [nn.GroupNorm(1, width), activation()] if layer_norm else [activation()]
            if use_maxpool and max(_pair(stride)) > 1:
                layers.append(nn.MaxPool2d(stride))
            fan_in = width
        if pool_size is not None:
            layers.append(nn.AdaptiveMaxPool2d(pool_size))
        self.in_channels = in_channels
        self.out_channels = fan_in
        self.pool_size = pool_size
        self.pixel_range = pixel_range
        self.layers = nn.Sequential(*layers)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map images ``[B, C, H, W]``, or one ``[C, H, W]``, to feature maps of ``out_channels`` channels."""
        return self.layers(scale_pixels_for(self.layers, pixels, self.pixel_range))

    def out_shape(self, h: int, w: int) -> tuple[int, int, int]:
        """Return (channels, height, width) of the output for images of ``h`` x ``w`` pixels.

        Raises:
            ValueError: if the image becomes empty in a layer (the message names it), or is smaller than ``pool_size``
                after the last one.
        """
        for index, layer in enumerate(self.layers):
            if not isinstance(layer, nn.Conv2d | nn.MaxPool2d):
                continue
            window: Any = layer  # torch's types for these attributes are wider than the constructor's
            try:
                h, w = conv2d_output_shape(h, w, window.kernel_size, window.stride, window.padding, window.dilation)
            except ValueError as error:
                raise ValueError(f"layer {index} of the stack, {layer}: {error}") from None
        if self.pool_size is None:
            return self.out_channels, h, w
        if self.pool_size > min(h, w):
            raise ValueError(f"pool_size must be at most {min(h, w)}, as the map is {h} x {w}, got {self.pool_size}")
        return self.out_channels, self.pool_size, self.pool_size

    def conv_out_size(self, h: int, w: int, c: int | None = None) -> int:
        """Return the number of features after flattening, without a forward pass.

        Args:
            h: image height in pixels.
            w: image width in pixels.
            c: image channels, only compared with ``in_channels``; None skips this check.

        Raises:
            ValueError: if the image becomes empty in a layer, or ``c`` is not ``in_channels``.
        """
        if c is not None and c != self.in_channels:
            raise ValueError(f"c must be the stack's in_channels {self.in_channels} or None, got {c}")
        return math.prod(self.out_shape(h, w))


class Conv2dHead(nn.Module):
    """Convolutions, flattening, and an MLP: an image encoder.

    It behaves like rlpyt's ``Conv2dHeadModel``. Without ``hidden_sizes`` and ``out_features`` the flattened feature map
    is the output. It can be pickled. It accepts ``channels_last`` images; features are always in C, H, W order.

    Args:
        image_shape: (channels, height, width).
        channels: output channels of each convolution. :class:`Conv2dStack` describes all options of the convolutions.
        kernel_sizes: one entry per convolution.
        strides: one entry per convolution.
        hidden_sizes: hidden widths of the MLP, see :class:`MLP`.
        out_features: width of the MLP's linear output layer; None for no such layer.
        paddings: one entry per convolution; None for no padding.
        activation: makes the activation module, here and in the MLP.
        use_maxpool: downsample by max-pooling instead of strides.
        pixel_range: scaling of uint8 input: ``"unit"``, ``"symmetric"`` or ``"centered"``.
        pool_size: side of the last feature map after adaptive max-pooling; None for no pooling.
        spectral_norm: convolutions with spectral normalisation: ``"none"`` or ``"all"``.
        layer_norm: LayerNorm before each activation, see :class:`Conv2dStack` and :class:`MLP`.

    Raises:
        ValueError: if the image becomes empty in a layer, or the sequences differ in length.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        channels: Sequence[int],
        kernel_sizes: Sequence[Size],
        strides: Sequence[Size],
        hidden_sizes: int | Sequence[int] | None,
        out_features: int | None = None,
        *,
        paddings: Sequence[Size] | None = None,
        activation: Activation = nn.ReLU,
        use_maxpool: bool = False,
        pixel_range: PixelRange = "unit",
        pool_size: int | None = None,
        spectral_norm: Literal["none", "all"] = "none",
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.in_keys = ["pixels"]
        self.image_shape = check_image_shape(image_shape)
        self.conv = Conv2dStack(
            self.image_shape[0],
            channels,
            kernel_sizes,
            strides,
            paddings,
            activation=activation,
            use_maxpool=use_maxpool,
            pixel_range=pixel_range,
            pool_size=pool_size,
            spectral_norm=spectral_norm,
            layer_norm=layer_norm,
        )
        flat_features = self.conv.conv_out_size(*self.image_shape[1:])
        self.head: nn.Module = nn.Identity()
        self.out_features = flat_features
        if as_sizes(hidden_sizes) or out_features is not None:
            self.head = MLP(flat_features, hidden_sizes, out_features, activation=activation, layer_norm=layer_norm)
            self.out_features = self.head.out_features

    def forward(self, pixels: Tensor) -> Tensor:
        """Map images ``[*B, C, H, W]``, uint8 or floating point, to features ``[*B, out_features]``."""
        features = self.head(self.conv(as_image_batch(pixels, self.image_shape)).flatten(1))
        return features if pixels.dim() == 4 else features.reshape(*pixels.shape[:-3], self.out_features)


def _pair(size: Size) -> tuple[int, int]:
    """Return (height, width); an int stands for both."""
    return (size, size) if isinstance(size, int) else size
