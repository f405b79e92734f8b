"""Options that several parts of a network have in common."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tesserl_configs.base import Block, FractionBelowOne, Ratio, Text, Width

Activation = Literal["relu", "tanh", "elu", "gelu", "silu", "leaky_relu"]
PixelRange = Literal["unit", "symmetric", "centered"]

PIXEL_RANGE = (
    "Range to which uint8 images are scaled: unit for [0, 1], symmetric for [-1, 1], centered for (x - 128) / 128 "
    "(Linesight); float images are left as they are."
)
ACTIVATION = "Activation after each hidden layer."


class TransformerOptions(Block):
    """Layers of self-attention and a GELU feed-forward network, and the pooling of their tokens."""

    num_heads: Width = Field(default=4, description="Number of attention heads, >= 1; must divide the token width.")
    feedforward_ratio: Ratio = Field(
        default=4.0, description="Hidden width of the feed-forward networks divided by the token width, >= 1 (ViT: 4)."
    )
    dropout: FractionBelowOne = Field(default=0.0, description="Probability of dropping a unit, in [0, 1).")
    norm: Literal["pre", "post"] = Field(
        default="pre", description="LayerNorm before each branch (Xiong et al. 2020) or after it (Vaswani et al. 2017)."
    )
    pooling: Literal["mean", "cls", "attention"] = Field(
        default="mean",
        description=(
            "Way in which tokens become one vector. mean: their mean; cls: a learned class token; attention: their "
            "mean weighted by a learned score."
        ),
    )


class HFOptions(Block):
    """A model of Hugging Face."""

    model: Text = Field(description="Name on the Hugging Face hub, or a local directory.")
    revision: Text | None = Field(default=None, description="Branch, tag or commit on the hub; null: its main branch.")
    local_files_only: bool = Field(
        default=False, description="Read the model from local files only; never download it."
    )
    trust_remote_code: bool = Field(
        default=False,
        description="Run code from the model's repository on the hub; use it only with authors whom you trust.",
    )
    dropout: FractionBelowOne = Field(
        default=0.0, description="Probability of dropping a unit of the tokens, in [0, 1)."
    )
