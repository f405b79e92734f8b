"""Build encoders for the shapes of the task's observations from ``nn.vision`` and ``nn.vector``."""

from torch import nn

from tesserl_configs import ConfigError
from tesserl_configs import vision as visions
from tesserl_configs.nn import MLPVector
from tesserl_nn_components import Conv2dHead, HFVisionEncoder, ImpalaCNN, PatchViT, VectorEncoder
from tesserl_trainer.networks.parts import ACTIVATIONS, HF_ERRORS, attention, hf_model, named


def build_vision(config: visions.Vision, image_shape: tuple[int, ...]) -> nn.Module:
    """Build the encoder of images (channels, height, width) from a block of any kind except ``none``."""
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
    """Refuse to pool a feature map to a larger size, which would only repeat its entries."""
    for _ in config.channels:
        height, width = (height + 1) // 2, (width + 1) // 2
    if config.pool_size is not None and config.pool_size > min(height, width):
        raise ConfigError(
            f"nn.vision.pool_size: expected at most {min(height, width)}, as the map behind {len(config.channels)} "
            f"stages is {height} x {width} here, got {config.pool_size}; choose a smaller one, fewer channels or null"
        )


def build_vector(config: MLPVector, width: int) -> VectorEncoder:
    """Build the encoder of vectors."""
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
