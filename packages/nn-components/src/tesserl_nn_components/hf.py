"""Vision backbones from Hugging Face; needs the extra ``tesserl-nn-components[hf]``, imported on first use."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from tesserl_nn_components.hf_loading import hf_model
from tesserl_nn_components.parts import freeze
from tesserl_nn_components.pixels import as_image_batch, check_image_shape, scale_pixels
from tesserl_nn_components.transformer import Pooling, TokenEncoder, TokenPooling


class HFVisionEncoder(nn.Module):
    """A vision model of ``transformers`` as an image encoder.

    uint8 images are scaled to [0, 1]; float images must be in [0, 1] already. They are then resized bilinearly to the
    model's size, normalised by its pixel statistics (buffers), and passed to the model. A grey image is repeated for
    each channel of the model. A frame stack goes through a learned 1 x 1 convolution that starts as the mean over
    frames (see :func:`channel_adapter`). Parameters that do not affect the tokens (a pooler, a mask token) get
    ``requires_grad=False``, because DistributedDataParallel would wait for their gradients.

    Args:
        image_shape: (channels, height, width).
        model: name on the hub or local directory; a ``transformers`` configuration, for random weights; or a built
            model.
        out_features: width of tokens and features, made by a linear layer; None keeps the model's width.
        pooling: ``"cls"`` for the first token, ``"mean"`` or ``"attention"`` over all, see :class:`TokenPooling`.
        frozen: compute no gradients in the model, and keep it in evaluation mode.
        use_backbone_api: load with ``AutoBackbone`` (the last of its feature maps) instead of ``AutoModel``.
        image_size: (height, width) to resize to; None for the model's size, or for no resizing if the model has none.
        pixel_mean: one value per channel of the model, in [0, 1]; None for the model's statistics, or 0.5 if ``model``
            is a configuration.
        pixel_std: the same for the standard deviation; positive.
        revision: branch, tag or commit on the hub.
        local_files_only: never download.
        trust_remote_code: run code that the hub's repository contains.
        dropout: probability in [0, 1], on the model's tokens.
        refine_layers: transformer layers over the projected tokens, before pooling.
        refine_heads: attention heads of these layers; divides the token width.

    Raises:
        ImportError: if transformers is not installed.
        ValueError: if the pixel statistics are unknown or do not fit, or ``pooling`` is ``"cls"`` and the model has no
            class token.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        model: Any,
        *,
        out_features: int | None = None,
        pooling: Pooling = "cls",
        frozen: bool = False,
        use_backbone_api: bool = False,
        image_size: tuple[int, int] | None = None,
        pixel_mean: Sequence[float] | None = None,
        pixel_std: Sequence[float] | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        dropout: float = 0.0,
        refine_layers: int = 0,
        refine_heads: int = 4,
    ) -> None:
        super().__init__()
        self.in_keys = ["pixels"]
        self.image_shape = check_image_shape(image_shape)
        hub: dict[str, Any] = {"revision": revision, "local_files_only": local_files_only}
        self.backbone = hf_model(model, trust_remote_code=trust_remote_code, backbone=use_backbone_api, **hub)
        own_channels, own_size = _input_of(self.backbone.config)
        if pixel_mean is None or pixel_std is None:
            own_mean, own_std = _pixel_statistics(model, self.backbone.config, hub)
            pixel_mean, pixel_std = pixel_mean or own_mean, pixel_std or own_std
        self.register_buffer("pixel_mean", _channel_values(pixel_mean, own_channels, "pixel_mean"))
        self.register_buffer("pixel_std", _channel_values(pixel_std, own_channels, "pixel_std"))
        self.image_size = image_size or own_size or self.image_shape[1:]
        self.channels = channel_adapter(self.image_shape[0], own_channels)
        output = release_unused(self.backbone, self._run, own_channels, *self.image_size)
        if len(output) == 4 and pooling == "cls":
            raise ValueError(f'{type(self.backbone).__name__} has no class token; use pooling "mean" or "attention"')
        # Tokens [1, L, D], or a feature map [1, D, h, w]
        self.num_tokens, width = output[1:] if len(output) == 3 else (math.prod(output[2:]), output[1])
        self.out_features = width if out_features is None else out_features
        project = nn.Identity() if out_features is None else nn.Linear(width, out_features)
        self.project = nn.Sequential(nn.Dropout(dropout), project)
        self.refine = TokenEncoder(self.out_features, refine_layers, refine_heads)
        self.pool = TokenPooling(self.out_features, pooling)
        if frozen:
            freeze(self, ["backbone"])

    def forward(self, pixels: Tensor) -> Tensor:
        """Map images ``[*B, C, H, W]``, uint8 or floating point, to features ``[*B, out_features]``."""
        return self.pool(self.tokens(pixels))

    def tokens(self, pixels: Tensor) -> Tensor:
        """Map images ``[*B, C, H, W]`` to all of the model's tokens ``[*B, num_tokens, out_features]``."""
        images = scale_pixels(as_image_batch(pixels, self.image_shape), self.pixel_mean.dtype)
        # Resizing and normalisation commute; the normalisation comes last because it broadcasts a single channel
        images = self._resize(self.channels(images))
        output = self._run((images - self.pixel_mean) / self.pixel_std)
        tokens = output if output.dim() == 3 else output.flatten(2).transpose(1, 2)
        return self.refine.tokens(self.project(tokens)).reshape(*pixels.shape[:-3], self.num_tokens, self.out_features)

    def _resize(self, images: Tensor) -> Tensor:
        """Resize images to ``image_size``, with smoothing if they shrink."""
        if self.image_shape[1:] == tuple(self.image_size):
            return images
        shrinks = any(have > want for have, want in zip(self.image_shape[1:], self.image_size, strict=True))
        # In float32: smoothing has no half-precision kernel on the CPU (torch 2.13)
        resized = interpolate(images.float(), tuple(self.image_size), mode="bilinear", antialias=shrinks)
        return resized.to(images.dtype)

    def _run(self, images: Tensor) -> Tensor:
        """Run the model: tokens ``[B, L, D]`` or a feature map ``[B, D, h, w]``."""
        output = self.backbone(images)
        return output.feature_maps[-1] if hasattr(output, "feature_maps") else output.last_hidden_state


def channel_adapter(channels: int, model_channels: int) -> nn.Module:
    """Return the module that maps images with ``channels`` to the ``model_channels`` of a model.

    For a single channel, which broadcasting repeats, and for equal numbers of channels it is the identity. Otherwise it
    is a 1 x 1 convolution without bias. If ``channels`` is a multiple of ``model_channels``, as for a stack of frames,
    it starts as the mean over the frames; otherwise each output channel starts as the mean of all channels.
    """
    if channels in (1, model_channels):
        return nn.Identity()
    adapter = nn.Conv2d(channels, model_channels, 1, bias=False)
    if channels % model_channels == 0:
        frames = channels // model_channels
        weight = torch.eye(model_channels).repeat(1, frames) / frames
    else:
        weight = torch.full((model_channels, channels), 1 / channels)
    with torch.no_grad():
        adapter.weight.copy_(weight[:, :, None, None])
    return adapter


def release_unused(model: nn.Module, run: Callable[[Tensor], Tensor], *shape: int) -> torch.Size:
    """Freeze parameters on which the output for ``[1, *shape]`` does not depend; return the output's shape."""
    training = model.training
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()  # no dropout: building a network must draw random numbers for its weights only
    with torch.enable_grad():
        probe = next(model.parameters())
        output = run(torch.zeros(1, *shape, dtype=probe.dtype, device=probe.device))
        gradients = torch.autograd.grad(output.sum(), parameters, allow_unused=True) if parameters else ()
    model.train(training)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)
    return output.shape


def _input_of(config: Any) -> tuple[int, tuple[int, int] | None]:
    """Return the channels and the (height, width) that a model expects; None if it takes any size."""
    timm = getattr(config, "pretrained_cfg", None) or {}
    if "input_size" in timm:  # transformers' wrapper of timm models stores timm's configuration
        channels, height, width = timm["input_size"]
        return channels, (height, width)
    size = getattr(config, "image_size", None)
    if isinstance(size, int):
        size = (size, size)
    return getattr(config, "num_channels", 3), None if size is None else tuple(size)


def _pixel_statistics(model: Any, config: Any, hub: dict[str, Any]) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and standard deviation of the pixels that a model was trained on."""
    if isinstance(model, str):
        auto = importlib.import_module("transformers.models.auto.image_processing_auto")
        record = auto.get_image_processor_config(model, **hub)
        timm = getattr(config, "pretrained_cfg", None) or {}
        mean, std = record.get("image_mean", timm.get("mean")), record.get("image_std", timm.get("std"))
        if mean and std:
            return mean, std
    elif not isinstance(model, nn.Module):
        return [0.5], [0.5]  # random weights have no pixel statistics
    raise ValueError(f"pixel_mean and pixel_std of {type(config).__name__} are not known; give them")


def _channel_values(values: Sequence[float], channels: int, name: str) -> Tensor:
    """Return one number per channel as ``[1, channels, 1, 1]``; repeat a single number."""
    if len(values) not in (1, channels) or (name == "pixel_std" and min(values) <= 0):
        raise ValueError(f"{name} must be 1 or {channels} numbers (positive for pixel_std), got {list(values)}")
    return torch.tensor(values).expand(channels).clone().reshape(1, channels, 1, 1)
