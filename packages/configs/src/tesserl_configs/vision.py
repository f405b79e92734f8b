"""``nn.vision:``, the encoder of images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tesserl_configs.base import (
    Absent,
    Block,
    LayersFromZero,
    Pixels,
    PixelsFromZero,
    Positive,
    Real,
    Sides,
    Width,
    Widths,
)
from tesserl_configs.layers import PIXEL_RANGE, Activation, HFOptions, PixelRange, TransformerOptions

PRESETS: dict[str, dict[str, tuple[int, ...]]] = {
    "nature": {"channels": (32, 64, 64), "kernel_sizes": (8, 4, 3), "strides": (4, 2, 1)},
    "compact": {"channels": (16, 32, 64, 32), "kernel_sizes": (4, 4, 3, 3), "strides": (2, 2, 2, 1)},
}


class CNNVision(Block):
    """A stack of convolutions; the defaults are those of Mnih et al. 2015 (Nature 518) for 84 x 84 images."""

    kind: Literal["cnn"] = "cnn"
    preset: Literal["nature", "compact"] | None = Field(
        default=None,
        description=(
            "Channels, kernel sizes and strides by name: nature (Mnih et al. 2015, 84 x 84), "
            "compact (four layers, 64 x 64); null: as below."
        ),
    )
    channels: Widths = Field(
        default=PRESETS["nature"]["channels"], min_length=1, description="Output channels of each convolution, >= 1."
    )
    kernel_sizes: Sides = Field(
        default=PRESETS["nature"]["kernel_sizes"], description="Kernel size of each convolution, in pixels, >= 1."
    )
    strides: Sides = Field(
        default=PRESETS["nature"]["strides"], description="Stride of each convolution, in pixels, >= 1."
    )
    paddings: tuple[PixelsFromZero, ...] | None = Field(
        default=None, description="Zeros added on each side before each convolution, in pixels; null: none."
    )
    activation: Activation = Field(default="relu", description="Activation after each layer.")
    hidden_sizes: Widths = Field(default=(), description="Widths of the linear layers after flattening, >= 1.")
    use_maxpool: bool = Field(
        default=False, description="Stride by max-pooling after a convolution of stride 1, as rlpyt does."
    )
    pool_size: Pixels | None = Field(
        default=None,
        description="Side of the feature map after adaptive max-pooling, >= 1, at most its size before; null: none.",
    )
    spectral_norm: Literal["none", "all"] = Field(
        default="none", description="Convolutions under spectral normalisation (Miyato et al. 2018)."
    )
    layer_norm: bool = Field(
        default=False,
        description="LayerNorm before each activation; of a convolution over its channels and positions.",
    )
    pixel_range: PixelRange = Field(default="unit", description=PIXEL_RANGE)

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_preset(cls, data: Any) -> Any:
        """Replace a preset by its columns, so that the resolved file shows them."""
        preset = data.get("preset") if isinstance(data, dict) else None
        return {**PRESETS[preset], **data} if isinstance(preset, str) and preset in PRESETS else data


class ImpalaVision(Block):
    """The residual network of IMPALA (Espeholt et al. 2018, arXiv:1802.01561), without its linear layer.

    Beyond The Rainbow (Clark et al. 2024, arXiv:2411.03820) is width 2, pool_size 6, spectral_norm residual.
    """

    kind: Literal["impala"] = "impala"
    channels: Widths = Field(
        default=(16, 32, 32), min_length=1, description="Output channels of each stage, before width, >= 1 (IMPALA)."
    )
    width: Width = Field(default=1, description="Multiplies all channels, >= 1 (Beyond The Rainbow: 2).")
    pool_size: Pixels | None = Field(
        default=None,
        description="Side of the feature map after adaptive max-pooling, >= 1 (Beyond The Rainbow: 6); null: none.",
    )
    spectral_norm: Literal["none", "residual", "all"] = Field(
        default="none",
        description="Convolutions under spectral normalisation (Beyond The Rainbow: those of the residual blocks).",
    )
    pixel_range: PixelRange = Field(default="unit", description=PIXEL_RANGE)


class ViTVision(TransformerOptions):
    """A vision transformer on patches (Dosovitskiy et al. 2021, arXiv:2010.11929)."""

    kind: Literal["vit"] = "vit"
    patch_size: Pixels = Field(
        default=8, description="Side of a patch in pixels, >= 1; divides height and width of the image."
    )
    d_model: Width = Field(default=256, description="Token width, >= 1; a multiple of num_heads.")
    num_layers: LayersFromZero = Field(default=2, description="Transformer layers, >= 0; 0: the embedded patches.")
    pixel_range: PixelRange = Field(default="unit", description=PIXEL_RANGE)


class HFVision(HFOptions):
    """A vision model of Hugging Face; needs the extra hf."""

    kind: Literal["hf"] = "hf"
    out_features: Width | None = Field(
        default=None, description="Width of tokens and features, by a linear layer, >= 1; null: the model's own."
    )
    pooling: Literal["mean", "cls", "attention"] = Field(
        default="mean",
        description="One vector of the tokens: their mean, the first one, or the mean by a learned score.",
    )
    frozen: bool = Field(
        default=False, description="The model does not learn, what stands around it does; nn.freeze freezes both."
    )
    use_backbone_api: bool = Field(
        default=False, description="Load with AutoBackbone (the last of its feature maps) instead of AutoModel."
    )
    image_size: tuple[Pixels, Pixels] | None = Field(
        default=None, description="Height and width to resize to, in pixels, >= 1; null: the model's own."
    )
    pixel_mean: tuple[Real, ...] | None = Field(
        default=None, min_length=1, description="Mean of each channel, of pixels in [0, 1]; null: the model's own."
    )
    pixel_std: tuple[Positive, ...] | None = Field(
        default=None, min_length=1, description="Standard deviation of each channel, > 0; null: the model's own."
    )
    refine_layers: LayersFromZero = Field(
        default=0, description="Transformer layers over the projected tokens, before pooling, >= 0."
    )
    refine_heads: Width = Field(default=4, description="Their attention heads, >= 1; divides the token width.")


Vision = Annotated[Absent | CNNVision | ImpalaVision | ViTVision | HFVision, Field(discriminator="kind")]
