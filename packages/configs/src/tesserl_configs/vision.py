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
            "Name of a set of channels, kernel sizes and strides: nature (Mnih et al. 2015, 84 x 84) or compact (four "
            "layers, 64 x 64); null: the keys below."
        ),
    )
    channels: Widths = Field(
        default=PRESETS["nature"]["channels"],
        min_length=1,
        description="Number of output channels of each convolution, >= 1.",
    )
    kernel_sizes: Sides = Field(
        default=PRESETS["nature"]["kernel_sizes"], description="Kernel size of each convolution, in pixels, >= 1."
    )
    strides: Sides = Field(
        default=PRESETS["nature"]["strides"], description="Stride of each convolution, in pixels, >= 1."
    )
    paddings: tuple[PixelsFromZero, ...] | None = Field(
        default=None,
        description="Width of the zero padding on each side before each convolution, in pixels, >= 0; null: none.",
    )
    activation: Activation = Field(default="relu", description="Activation after each layer.")
    hidden_sizes: Widths = Field(default=(), description="Widths of the linear layers after flattening, >= 1.")
    use_maxpool: bool = Field(
        default=False,
        description="Replace strided convolutions by convolutions of stride 1 and strided max-pooling, as in rlpyt.",
    )
    pool_size: Pixels | None = Field(
        default=None,
        description=(
            "Side of the feature map after adaptive max-pooling, >= 1, at most the side before; null: no pooling."
        ),
    )
    spectral_norm: Literal["none", "all"] = Field(
        default="none", description="Convolutions with spectral normalisation: none or all (Miyato et al. 2018)."
    )
    layer_norm: bool = Field(
        default=False,
        description="Apply LayerNorm before each activation; in a convolution, over channels and positions.",
    )
    pixel_range: PixelRange = Field(default="unit", description=PIXEL_RANGE)

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_preset(cls, data: Any) -> Any:
        """Fill in the keys of a preset, so that the resolved file shows them."""
        preset = data.get("preset") if isinstance(data, dict) else None
        return {**PRESETS[preset], **data} if isinstance(preset, str) and preset in PRESETS else data


class ImpalaVision(Block):
    """The residual network of IMPALA (Espeholt et al. 2018, arXiv:1802.01561), without its linear layer.

    Beyond The Rainbow (Clark et al. 2024, arXiv:2411.03820) uses width 2, pool_size 6 and spectral_norm residual.
    """

    kind: Literal["impala"] = "impala"
    channels: Widths = Field(
        default=(16, 32, 32),
        min_length=1,
        description="Number of output channels of each stage, before multiplication by width, >= 1 (IMPALA).",
    )
    width: Width = Field(default=1, description="Factor of all channels, >= 1 (Beyond The Rainbow: 2).")
    pool_size: Pixels | None = Field(
        default=None,
        description=(
            "Side of the feature map after adaptive max-pooling, >= 1 (Beyond The Rainbow: 6); null: no pooling."
        ),
    )
    spectral_norm: Literal["none", "residual", "all"] = Field(
        default="none",
        description=(
            "Convolutions with spectral normalisation: none, those of the residual blocks, or all (Beyond The "
            "Rainbow: residual)."
        ),
    )
    pixel_range: PixelRange = Field(default="unit", description=PIXEL_RANGE)


class ViTVision(TransformerOptions):
    """A vision transformer on patches (Dosovitskiy et al. 2021, arXiv:2010.11929)."""

    kind: Literal["vit"] = "vit"
    patch_size: Pixels = Field(
        default=8, description="Side of a patch, in pixels, >= 1; must divide height and width of the image."
    )
    d_model: Width = Field(default=256, description="Token width, >= 1; a multiple of num_heads.")
    num_layers: LayersFromZero = Field(
        default=2, description="Number of transformer layers, >= 0; 0 returns the embedded patches."
    )
    pixel_range: PixelRange = Field(default="unit", description=PIXEL_RANGE)


class HFVision(HFOptions):
    """A vision model of Hugging Face; needs the extra hf."""

    kind: Literal["hf"] = "hf"
    out_features: Width | None = Field(
        default=None,
        description="Width of tokens and features, set by a linear layer, >= 1; null keeps the model's width.",
    )
    pooling: Literal["mean", "cls", "attention"] = Field(
        default="mean",
        description=(
            "Way in which tokens become one vector. mean: their mean; cls: the first token; attention: their mean "
            "weighted by a learned score."
        ),
    )
    frozen: bool = Field(
        default=False, description="Freeze the model but not the layers around it; nn.freeze freezes both."
    )
    use_backbone_api: bool = Field(
        default=False,
        description="Load the model with AutoBackbone, whose last feature map is used, instead of AutoModel.",
    )
    image_size: tuple[Pixels, Pixels] | None = Field(
        default=None, description="Height and width to resize to, in pixels, >= 1; null: the model's own."
    )
    pixel_mean: tuple[Real, ...] | None = Field(
        default=None, min_length=1, description="Mean of each channel, for pixels in [0, 1]; null: the model's own."
    )
    pixel_std: tuple[Positive, ...] | None = Field(
        default=None,
        min_length=1,
        description="Standard deviation of each channel, for pixels in [0, 1], > 0; null: the model's own.",
    )
    refine_layers: LayersFromZero = Field(
        default=0, description="Number of transformer layers over the projected tokens, before pooling, >= 0."
    )
    refine_heads: Width = Field(
        default=4, description="Number of attention heads in the refine layers, >= 1; must divide the token width."
    )


Vision = Annotated[Absent | CNNVision | ImpalaVision | ViTVision | HFVision, Field(discriminator="kind")]
