"""Most of ``nn:`` -> a body, from the observations of the task to features: encoders, what joins them, and memory."""

import functools
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypedDict

import torch
from torch import nn

from tesserl_configs import ConfigError
from tesserl_configs import fusion as fusions
from tesserl_configs import vision as visions
from tesserl_configs.base import Absent
from tesserl_configs.layers import HFOptions, TransformerOptions
from tesserl_configs.nn import Memory, MLPVector, NNConfig
from tesserl_environments import ObservationLayout
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
    """Build the encoders of an ``nn:`` block, their fusion and the memory.

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
    """Put a recurrent network on a body; without memory return the body."""
    if isinstance(config, Absent):
        return body
    return RecurrentBody(body, config.hidden_size, kind=config.kind, num_layers=config.num_layers)


def build_vision(config: visions.Vision, image_shape: tuple[int, ...]) -> nn.Module:
    """Build the encoder of images.

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
                    layer_norm=config.layer_norm,
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
    """Build the encoder of vectors.

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
    """Build the fusion of the encoders.

    Args:
        config: a ``fusion:`` block.
        vision: encoder of images; None for no image.
        vector: encoder of vectors; None for no vector.

    Raises:
        ConfigError: a model of the trunk cannot be loaded, or has too few positions.
    """
    match config:
        case fusions.VisionTransformerFusion():
            common: _Joined = {"vision": vision, "vector": vector, "out_features": config.out_features}
            if config.d_model is None or config.num_tokens is None:  # no tokens: a linear trunk
                return VisionTransformerFusion(**common, vision_features=config.vision_features)
            return VisionTransformerFusion(
                **common,
                vision_features=config.vision_features,
                d_model=config.d_model,
                num_tokens=config.num_tokens,
                trunk=build_trunk(config.trunk),
            )
        case fusions.UnifiedFusion():
            return UnifiedFusion(
                vision=vision,
                vector=vector,
                out_features=config.out_features,
                d_model=config.d_model,
                trunk=build_trunk(config.trunk),
                num_vector_tokens=config.num_vector_tokens,
            )
        case fusions.PostConcatFusion():
            return _post_concat(config, vision, vector)
        case Absent():
            return ConcatFusion(vision=vision, vector=vector)


def _post_concat(
    config: fusions.PostConcatFusion, vision: nn.Module | None, vector: nn.Module | None
) -> PostConcatFusion:
    """Build the fusion of tokens that are made after the encoders."""
    common: _PostConcat = {
        "vision": vision,
        "vector": vector,
        "out_features": config.out_features,
        "d_model": config.d_model,
        "trunk": build_trunk(config.trunk),
    }
    match config.layout:
        case fusions.FusedVectorLayout() as fused:
            return PostConcatFusion(**common, layout=fused.kind, num_tokens=fused.num_tokens)
        case fusions.TokenSequenceLayout() as sequence:
            dense = sequence.vector_tokens
            return PostConcatFusion(
                **common,
                layout=sequence.kind,
                image_tokens=sequence.image_tokens,
                vector_tokens=dense.kind,
                num_tokens=dense.num_tokens if isinstance(dense, fusions.DenseTokens) else 1,
            )


class _Joined(TypedDict):
    vision: nn.Module | None
    vector: nn.Module | None
    out_features: int


class _PostConcat(_Joined):
    d_model: int
    trunk: TrunkFactory


def build_trunk(config: fusions.Trunk) -> TrunkFactory:
    """Return the function that makes the trunk for a number of tokens."""
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


class Attention(TypedDict):
    """Arguments of every module with transformer layers."""

    num_heads: int
    feedforward_ratio: float
    dropout: float
    norm: Literal["pre", "post"]
    pooling: Literal["mean", "cls", "attention"]


def attention(config: TransformerOptions) -> Attention:
    """Return the arguments of modules with transformer layers."""
    return Attention(
        num_heads=config.num_heads,
        feedforward_ratio=config.feedforward_ratio,
        dropout=config.dropout,
        norm=config.norm,
        pooling=config.pooling,
    )


class HFModel(TypedDict):
    """Arguments that name a model of Hugging Face."""

    model: object
    revision: str | None
    local_files_only: bool
    trust_remote_code: bool
    dropout: float


def hf_model(config: HFOptions) -> HFModel:
    """Return the arguments that name a model; on the meta device read only its configuration."""
    model: object = config.model
    if torch.get_default_device().type == "meta":
        transformers = importlib.import_module("transformers")
        model = transformers.AutoConfig.from_pretrained(
            config.model,
            revision=config.revision,
            local_files_only=config.local_files_only,
            trust_remote_code=config.trust_remote_code,
        )
    return HFModel(
        model=model,
        revision=config.revision,
        local_files_only=config.local_files_only,
        trust_remote_code=config.trust_remote_code,
        dropout=config.dropout,
    )


@contextmanager
def named(place: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn errors into ConfigErrors that begin with the key at fault."""
    try:
        yield
    except errors as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ConfigError(f"{place}: {kind}{error}") from error
