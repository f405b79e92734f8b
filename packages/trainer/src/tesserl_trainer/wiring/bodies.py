"""Most of ``nn:`` -> a body, from the observations of the task to features: encoders, what joins them, and memory."""

import functools
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tesserl_configs import ConfigError
from tesserl_configs import fusion as fusions
from tesserl_configs import vision as visions
from tesserl_configs.layers import HFOptions, TransformerOptions
from tesserl_configs.nn import Memory, MLPVector, NNConfig, NoMemory
from tesserl_nn_components import (
    CNNTrunk,
    ConcatFusion,
    Conv2dHead,
    HFEmbeddingTrunk,
    HFVisionEncoder,
    ImpalaCNN,
    LinearTrunk,
    MLPTrunk,
    PatchViT,
    PostConcatFusion,
    RecurrentBody,
    TransformerTrunk,
    UnifiedFusion,
    VectorEncoder,
    VisionTransformerFusion,
)
from tesserl_nn_components.trunks import TrunkFactory
from tesserl_trainer.run.observations import ObservationLayout

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
# What transformers raises for a model that is not there, not whole, or not of the kind that is wanted
HF_ERRORS = (AttributeError, ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError)


def build_body(config: NNConfig, layout: ObservationLayout) -> nn.Module:
    """Builds the encoders of an ``nn:`` block, what joins them, and the memory.

    Args:
        config: the block.
        layout: the keys that the task's observations yield.

    Raises:
        ConfigError: a branch has no input, or an input no branch, or an option does not fit the size of its input.
    """
    branches = {"pixels": ("vision", config.vision), "observation": ("vector", config.vector)}
    for key, (name, branch) in branches.items():
        if branch.kind == "none" and key in layout.keys:
            raise ConfigError(
                f"nn.{name}.kind: the task's observations hold {key} {layout.shapes[key]}, got none; choose an "
                f"encoder for them, or remove them from the observations in a wrapper"
            )
        if branch.kind != "none" and key not in layout.keys:
            raise ConfigError(
                f"nn.{name}.kind: {branch.kind} needs {key}, and the task's observations hold only "
                f"{', '.join(layout.keys)}; set it to none"
            )
    vision = None if config.vision.kind == "none" else build_vision(config.vision, layout.shapes["pixels"])
    vector = None if config.vector.kind == "none" else build_vector(config.vector, layout.shapes["observation"][0])
    return build_memory(config.memory, build_fusion(config.fusion, vision, vector))


def build_memory(config: Memory, body: nn.Module) -> nn.Module:
    """Puts a recurrent network on a body; without memory the body stays as it is."""
    if isinstance(config, NoMemory):
        return body
    return RecurrentBody(body, config.hidden_size, kind=config.kind, num_layers=config.num_layers)


def build_vision(config: visions.Vision, image_shape: tuple[int, ...]) -> nn.Module:
    """Builds the encoder of images.

    Args:
        config: a ``vision:`` block of any kind but none.
        image_shape: (channels, height, width).

    Raises:
        ConfigError: the image is too small, or patches do not divide it, or a model cannot be loaded.
    """
    channels, height, width = image_shape
    shape = channels, height, width
    match config:
        case visions.CNNVision():
            with named("nn.vision", ValueError):
                return Conv2dHead(
                    shape,
                    config.channels,
                    config.kernel_sizes,
                    config.strides,
                    config.hidden_sizes,
                    paddings=config.paddings,
                    activation=ACTIVATIONS[config.activation],
                    use_maxpool=config.use_maxpool,
                    pixel_range=config.pixel_range,
                    pool_size=config.pool_size,
                    spectral_norm=config.spectral_norm,
                )
        case visions.ImpalaVision():
            check_pool_size(config, height, width)
            return ImpalaCNN(
                shape,
                channels=config.channels,
                width=config.width,
                pool_size=config.pool_size,
                spectral_norm=config.spectral_norm,
                pixel_range=config.pixel_range,
            )
        case visions.ViTVision():
            with named("nn.vision.patch_size", ValueError):
                return PatchViT(
                    shape,
                    patch_size=config.patch_size,
                    d_model=config.d_model,
                    num_layers=config.num_layers,
                    pixel_range=config.pixel_range,
                    **attention(config),
                )
        case visions.HFVision():
            return _hf_vision(shape, config)
    raise TypeError(f"vision of kind {config.kind} has no encoder")


def _hf_vision(shape: tuple[int, int, int], config: visions.HFVision) -> nn.Module:
    with named(f"nn.vision: {config.model} cannot be used here", *HF_ERRORS):
        return HFVisionEncoder(
            shape,
            out_features=config.out_features,
            pooling=config.pooling,
            frozen=config.frozen,
            use_backbone_api=config.use_backbone_api,
            image_size=config.image_size,
            pixel_mean=config.pixel_mean,
            pixel_std=config.pixel_std,
            refine_layers=config.refine_layers,
            refine_heads=config.refine_heads,
            **hf_model(config),
        )


def check_pool_size(config: visions.ImpalaVision, height: int, width: int) -> None:
    """Refuses to pool a feature map to a larger one, which would only repeat its entries.

    Raises:
        ConfigError: ``pool_size`` is above the side of the last stage's map.
    """
    for _ in config.channels:
        height, width = (height + 1) // 2, (width + 1) // 2
    if config.pool_size is not None and config.pool_size > min(height, width):
        raise ConfigError(
            f"nn.vision.pool_size: expected at most {min(height, width)}, as the map behind {len(config.channels)} "
            f"stages is {height} x {width} here, got {config.pool_size}; choose a smaller one, fewer channels or null"
        )


def build_vector(config: MLPVector, width: int) -> VectorEncoder:
    """Builds the encoder of vectors.

    Args:
        config: a ``vector:`` block of kind mlp.
        width: number of features.

    Raises:
        ConfigError: the statistics have another length.
    """
    normalization = config.normalization
    fixed = normalization if normalization.kind == "fixed" else None
    if fixed is not None and len(fixed.mean) != width:
        raise ConfigError(
            f"nn.vector.normalization.mean: expected {width} numbers, one per feature, got {len(fixed.mean)}"
        )
    return VectorEncoder(
        width,
        hidden_sizes=config.hidden_sizes,
        activation=ACTIVATIONS[config.activation],
        layer_norm=config.layer_norm,
        mean=None if fixed is None else fixed.mean,
        std=None if fixed is None else fixed.std,
        running=normalization.kind == "running",
    )


def build_fusion(config: fusions.Fusion, vision: nn.Module | None, vector: nn.Module | None) -> nn.Module:
    """Joins the encoders.

    Args:
        config: a ``fusion:`` block.
        vision: encoder of images; None for no image.
        vector: encoder of vectors; None for no vector.

    Raises:
        ConfigError: a model of the trunk cannot be loaded, or has too few positions.
    """
    branches: dict[str, Any] = {"vision": vision, "vector": vector}
    if config.kind == "none":
        return ConcatFusion(**branches)
    branches |= {"out_features": config.out_features}
    if config.kind == "vision_transformer":
        if config.d_model is not None and config.num_tokens is not None:
            branches |= {"d_model": config.d_model, "num_tokens": config.num_tokens, "trunk": build_trunk(config.trunk)}
        return VisionTransformerFusion(**branches, vision_features=config.vision_features)
    branches |= {"d_model": config.d_model, "trunk": build_trunk(config.trunk)}
    if config.kind == "unified":
        return UnifiedFusion(**branches, num_vector_tokens=config.num_vector_tokens)
    layout = config.layout
    if layout.kind == "fused_vector":
        return PostConcatFusion(**branches, layout=layout.kind, num_tokens=layout.num_tokens)
    return PostConcatFusion(
        **branches,
        layout=layout.kind,
        image_tokens=layout.image_tokens,
        vector_tokens=layout.vector_tokens.kind,
        num_tokens=getattr(layout.vector_tokens, "num_tokens", 1),
    )


def build_trunk(config: fusions.Trunk) -> TrunkFactory:
    """What makes the trunk once the number of tokens is known."""
    match config:
        case fusions.NativeTransformerTrunk():
            return functools.partial(TransformerTrunk, num_layers=config.num_layers, **attention(config))
        case fusions.MLPTrunk():
            activation = ACTIVATIONS[config.activation]
            return functools.partial(
                MLPTrunk, hidden_sizes=config.hidden_sizes, activation=activation, dropout=config.dropout
            )
        case fusions.CNNTrunk():
            return functools.partial(
                CNNTrunk,
                channels=config.channels,
                kernel_size=config.kernel_size,
                activation=ACTIVATIONS[config.activation],
                dropout=config.dropout,
            )
        case fusions.HFEmbeddingTrunk():
            return functools.partial(_hf_trunk, config=config)
    return LinearTrunk


def _hf_trunk(num_tokens: int, d_model: int, *, config: fusions.HFEmbeddingTrunk) -> nn.Module:
    with named(f"nn.fusion.trunk: {config.model} cannot be used here", *HF_ERRORS):
        return HFEmbeddingTrunk(num_tokens, d_model, **hf_model(config))


def attention(config: TransformerOptions) -> dict[str, Any]:
    """The arguments that everything with transformer layers takes."""
    return {name: getattr(config, name) for name in TransformerOptions.model_fields}


def hf_model(config: HFOptions) -> dict[str, Any]:
    """The arguments that name a model of Hugging Face; on the meta device its configuration alone is read."""
    options = {name: getattr(config, name) for name in HFOptions.model_fields}
    if torch.get_default_device().type == "meta":
        hub = {name: options[name] for name in ("revision", "local_files_only", "trust_remote_code")}
        transformers = importlib.import_module("transformers")
        options["model"] = transformers.AutoConfig.from_pretrained(config.model, **hub)
    return options


@contextmanager
def named(place: str, *errors: type[Exception]) -> Iterator[None]:
    """Turns errors into ConfigErrors that begin with the key at fault."""
    try:
        yield
    except errors as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ConfigError(f"{place}: {kind}{error}") from error
