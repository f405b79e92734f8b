"""``nn:``, the network: one tagged union for each of its parts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tesserl_configs.base import Block, NonNegativeInt, Positive, Real, Widths

Activation = Literal["relu", "tanh", "elu", "gelu", "silu", "leaky_relu"]
Part = Literal["vision", "vector", "fusion", "heads"]

# --- vision: the encoder of images -------------------------------------------------------------------------------


class NoVision(Block):
    """The task has no images."""

    kind: Literal["none"] = "none"


class CNNVision(Block):
    """A stack of convolutions; the defaults are those of Mnih et al. 2015 (Nature 518) for 84 x 84 images."""

    kind: Literal["cnn"] = "cnn"
    channels: Widths = Field(default=(32, 64, 64), min_length=1, description="Output channels of each convolution.")
    kernel_sizes: Widths = Field(default=(8, 4, 3), description="Kernel size of each convolution, in pixels.")
    strides: Widths = Field(default=(4, 2, 1), description="Stride of each convolution, in pixels.")
    paddings: tuple[NonNegativeInt, ...] | None = Field(
        default=None, description="Zeros added on each side before each convolution, in pixels; null: none."
    )
    activation: Activation = Field(default="relu", description="Activation after each layer.")
    hidden_sizes: Widths = Field(default=(), description="Widths of the linear layers after flattening.")
    use_maxpool: bool = Field(
        default=False, description="Stride by max-pooling after a convolution of stride 1, as rlpyt does."
    )


Vision = Annotated[NoVision | CNNVision, Field(discriminator="kind")]

# --- vector: the encoder of vector observations ------------------------------------------------------------------


class NoVector(Block):
    """The task has no vector observations."""

    kind: Literal["none"] = "none"


class MLPVector(Block):
    """Normalisation and a multilayer perceptron."""

    kind: Literal["mlp"] = "mlp"
    hidden_sizes: Widths = Field(default=(64, 64), description="Widths of the layers; empty: normalisation only.")
    activation: Activation = Field(default="relu", description="Activation after each layer.")
    layer_norm: bool = Field(default=False, description="LayerNorm before each activation.")
    mean: tuple[Real, ...] | None = Field(default=None, description="Fixed mean of each feature; null: 0.")
    std: tuple[Positive, ...] | None = Field(
        default=None, description="Fixed standard deviation of each feature, > 0; null: 1."
    )


Vector = Annotated[NoVector | MLPVector, Field(discriminator="kind")]

# --- fusion: how the two branches are joined ---------------------------------------------------------------------


class NoFusion(Block):
    """The features of the branches are concatenated."""

    kind: Literal["none"] = "none"


# --- heads: from features to values ------------------------------------------------------------------------------


class HeadsConfig(Block):
    """What turns features into action values."""

    hidden_sizes: Widths = Field(
        default=(512,), description="Widths of the hidden layers, of each stream if dueling (IQN paper: one of 512)."
    )
    dueling: bool = Field(default=False, description="Separate value and advantage streams (Wang et al. 2016).")
    noisy: bool = Field(default=False, description="Noisy linear layers (Fortunato et al. 2018), sigma 0.5.")


class NNConfig(Block):
    """The network."""

    vision: Vision = Field(default_factory=NoVision, description="Encoder of images.")
    vector: Vector = Field(default_factory=NoVector, description="Encoder of vector observations.")
    fusion: NoFusion = Field(default_factory=NoFusion, description="How the two branches are joined.")
    heads: HeadsConfig = Field(default_factory=HeadsConfig, description="From features to action values.")
    freeze: tuple[Part, ...] = Field(default=(), description="Parts that do not learn.")
