"""``nn.fusion:``, the fusion of image and vector, and the trunk that reads their tokens."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tesserl_configs.base import Absent, Block, FractionBelowOne, LayersFromZero, Pixels, Width, Widths
from tesserl_configs.layers import ACTIVATION, Activation, HFOptions, TransformerOptions

# --- trunk: from tokens to one vector ----------------------------------------------------------------------------


class LinearTrunk(Block):
    """Average the tokens and apply a linear layer; in fusion vision_transformer, a linear layer without tokens."""

    kind: Literal["linear"] = "linear"


class NativeTransformerTrunk(TransformerOptions):
    """Apply transformer layers, then pool the tokens."""

    kind: Literal["native_transformer"] = "native_transformer"
    num_layers: LayersFromZero = Field(
        default=2, description="Number of transformer layers, >= 0; 0 only pools the tokens."
    )


class MLPTrunk(Block):
    """Apply a multilayer perceptron to the concatenated tokens."""

    kind: Literal["mlp"] = "mlp"
    hidden_sizes: Widths = Field(default=(512,), description="Widths of the hidden layers, >= 1; empty: linear.")
    activation: Activation = Field(default="relu", description=ACTIVATION)
    dropout: FractionBelowOne = Field(default=0.0, description="Probability of dropping a unit, in [0, 1).")


class CNNTrunk(Block):
    """Apply convolutions along the tokens, average the tokens, and apply a linear layer."""

    kind: Literal["cnn"] = "cnn"
    channels: Widths = Field(default=(256, 256), min_length=1, description="Output channels of each convolution, >= 1.")
    kernel_size: Pixels = Field(default=3, description="Number of neighbouring tokens in each convolution, >= 1; odd.")
    activation: Activation = Field(default="relu", description="Activation after each convolution.")
    dropout: FractionBelowOne = Field(default=0.0, description="Probability of dropping a channel, in [0, 1).")


class HFEmbeddingTrunk(HFOptions):
    """A text model of Hugging Face that reads the tokens as its input embeddings; needs the extra hf."""

    kind: Literal["hf_embedding"] = "hf_embedding"


Trunk = Annotated[
    LinearTrunk | NativeTransformerTrunk | MLPTrunk | CNNTrunk | HFEmbeddingTrunk, Field(discriminator="kind")
]

# --- layout of post_concat: what the tokens are ------------------------------------------------------------------


class DenseTokens(Block):
    """Make the tokens of the vector with one linear layer."""

    kind: Literal["dense"] = "dense"
    num_tokens: Width = Field(default=1, description="Number of tokens made from the vector, >= 1.")


class PerFeatureTokens(Block):
    """Make one token for each feature (Gorishniy et al. 2021, arXiv:2106.11959)."""

    kind: Literal["per_feature"] = "per_feature"


VectorTokens = Annotated[DenseTokens | PerFeatureTokens, Field(discriminator="kind")]


class FusedVectorLayout(Block):
    """Concatenate image and vector features, and make tokens from them with one linear layer."""

    kind: Literal["fused_vector"] = "fused_vector"
    num_tokens: Width = Field(default=4, description="Number of tokens made from the joint vector, >= 1.")


class TokenSequenceLayout(Block):
    """Make separate tokens of image and vector; a vector without layers in nn.vector enters as raw features."""

    kind: Literal["token_sequence"] = "token_sequence"
    image_tokens: Literal["summary", "all"] = Field(
        default="summary", description="summary: one token for the image; all: every token of its encoder (vit, hf)."
    )
    vector_tokens: VectorTokens = Field(
        default_factory=DenseTokens, description="Way in which the tokens of the vector are made."
    )


Layout = Annotated[FusedVectorLayout | TokenSequenceLayout, Field(discriminator="kind")]

# --- fusion ------------------------------------------------------------------------------------------------------

_OUT = "Width of the features passed to the heads, set by a linear layer after the trunk, >= 1."
_D_MODEL = "Token width, >= 1; a multiple of the trunk's num_heads."


class VisionTransformerFusion(Block):
    """Late fusion: summarise the image, then join it with the vector; a trunk may follow."""

    kind: Literal["vision_transformer"] = "vision_transformer"
    out_features: Width = Field(default=512, description=_OUT)
    vision_features: Width | None = Field(
        default=None,
        description="Width of the image features, set by a linear layer, >= 1; null keeps the encoder's width.",
    )
    d_model: Width | None = Field(
        default=None, description=f"{_D_MODEL} null: 256, or no tokens with the linear trunk."
    )
    num_tokens: Width | None = Field(
        default=None,
        description="Number of tokens made from the joint vector, >= 1; null: 4, or no tokens with the linear trunk.",
    )
    trunk: Trunk = Field(default_factory=LinearTrunk, description="Trunk that reduces the tokens to one vector.")

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_tokens(cls, data: Any) -> Any:
        """Fill in the token keys for a trunk that is not linear, so that the resolved file shows them."""
        trunk = data.get("trunk") if isinstance(data, dict) else None
        is_linear = trunk.get("kind") == "linear" if isinstance(trunk, dict) else isinstance(trunk, LinearTrunk | None)
        if is_linear or not isinstance(data, dict):
            return data
        given = {key: value for key, value in data.items() if value is not None}
        return {"d_model": 256, "num_tokens": 4, **given}


class PostConcatFusion(Block):
    """Encode image and vector first, then let a trunk read tokens made from their features."""

    kind: Literal["post_concat"] = "post_concat"
    out_features: Width = Field(default=512, description=_OUT)
    d_model: Width = Field(default=256, description=_D_MODEL)
    layout: Layout = Field(
        default_factory=FusedVectorLayout,
        description="Way in which tokens are made from the image and vector features.",
    )
    trunk: Trunk = Field(
        default_factory=NativeTransformerTrunk, description="Trunk that reduces the tokens to one vector."
    )


class UnifiedFusion(Block):
    """Early fusion: one trunk reads all tokens of image and vector as one sequence."""

    kind: Literal["unified"] = "unified"
    out_features: Width = Field(default=512, description=_OUT)
    d_model: Width = Field(default=256, description=_D_MODEL)
    num_vector_tokens: Width = Field(default=1, description="Number of tokens made from the vector, >= 1.")
    trunk: Trunk = Field(
        default_factory=NativeTransformerTrunk, description="Trunk that reduces the tokens to one vector."
    )


Fusion = Annotated[Absent | VisionTransformerFusion | PostConcatFusion | UnifiedFusion, Field(discriminator="kind")]
