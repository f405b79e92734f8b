"""``nn.fusion:``, how image and vector are joined, and the trunk that reads their tokens."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tesserl_configs.base import Absent, Block, FractionBelowOne, LayersFromZero, Pixels, Width, Widths
from tesserl_configs.layers import ACTIVATION, Activation, HFOptions, TransformerOptions

# --- trunk: from tokens to one vector ----------------------------------------------------------------------------


class LinearTrunk(Block):
    """The mean of the tokens and a linear layer; under vision_transformer a linear layer alone, without tokens."""

    kind: Literal["linear"] = "linear"


class NativeTransformerTrunk(TransformerOptions):
    """Transformer layers and pooling."""

    kind: Literal["native_transformer"] = "native_transformer"
    num_layers: LayersFromZero = Field(default=2, description="Transformer layers, >= 0; 0: pooling alone.")


class MLPTrunk(Block):
    """A multilayer perceptron over all tokens side by side."""

    kind: Literal["mlp"] = "mlp"
    hidden_sizes: Widths = Field(default=(512,), description="Widths of the hidden layers, >= 1; empty: linear.")
    activation: Activation = Field(default="relu", description=ACTIVATION)
    dropout: FractionBelowOne = Field(default=0.0, description="Probability of dropping a unit, in [0, 1).")


class CNNTrunk(Block):
    """Convolutions along the tokens, their mean, a linear layer."""

    kind: Literal["cnn"] = "cnn"
    channels: Widths = Field(default=(256, 256), min_length=1, description="Output channels of each convolution, >= 1.")
    kernel_size: Pixels = Field(default=3, description="Neighbouring tokens that a convolution sees, >= 1; odd.")
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
    """One linear layer from the vector to its tokens."""

    kind: Literal["dense"] = "dense"
    num_tokens: Width = Field(default=1, description="Tokens of the vector, >= 1.")


class PerFeatureTokens(Block):
    """One token for each feature (Gorishniy et al. 2021, arXiv:2106.11959)."""

    kind: Literal["per_feature"] = "per_feature"


VectorTokens = Annotated[DenseTokens | PerFeatureTokens, Field(discriminator="kind")]


class FusedVectorLayout(Block):
    """Image and vector features are concatenated, and one linear layer makes tokens of them."""

    kind: Literal["fused_vector"] = "fused_vector"
    num_tokens: Width = Field(default=4, description="Tokens of the joint vector, >= 1.")


class TokenSequenceLayout(Block):
    """Image and vector have tokens of their own; nn.vector without layers gives raw features, else the last layer's."""

    kind: Literal["token_sequence"] = "token_sequence"
    image_tokens: Literal["summary", "all"] = Field(
        default="summary", description="One token of the image, or all tokens of its encoder (vit, hf)."
    )
    vector_tokens: VectorTokens = Field(default_factory=DenseTokens, description="Tokens of the vector.")


Layout = Annotated[FusedVectorLayout | TokenSequenceLayout, Field(discriminator="kind")]

# --- fusion ------------------------------------------------------------------------------------------------------

_OUT = "Width of the features that the heads see, by a linear layer after the trunk, >= 1."
_D_MODEL = "Token width, >= 1; a multiple of the trunk's num_heads."


class VisionTransformerFusion(Block):
    """Late fusion: the image is summarised first and joined with the vector; a trunk may follow."""

    kind: Literal["vision_transformer"] = "vision_transformer"
    out_features: Width = Field(default=512, description=_OUT)
    vision_features: Width | None = Field(
        default=None, description="Width of the image features, by a linear layer, >= 1; null: the encoder's own."
    )
    d_model: Width | None = Field(default=None, description=f"{_D_MODEL} null: 256, under trunk linear no tokens.")
    num_tokens: Width | None = Field(
        default=None, description="Tokens of the joint vector, >= 1; null: 4, under trunk linear no tokens."
    )
    trunk: Trunk = Field(default_factory=LinearTrunk, description="From the tokens to one vector.")

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_tokens(cls, data: Any) -> Any:
        """Set the tokens of a trunk that is not linear, so that the resolved file shows them."""
        trunk = data.get("trunk") if isinstance(data, dict) else None
        is_linear = trunk.get("kind") == "linear" if isinstance(trunk, dict) else isinstance(trunk, LinearTrunk | None)
        if is_linear or not isinstance(data, dict):
            return data
        given = {key: value for key, value in data.items() if value is not None}
        return {"d_model": 256, "num_tokens": 4, **given}


class PostConcatFusion(Block):
    """Both branches are encoded first, and a trunk reads tokens of what they found."""

    kind: Literal["post_concat"] = "post_concat"
    out_features: Width = Field(default=512, description=_OUT)
    d_model: Width = Field(default=256, description=_D_MODEL)
    layout: Layout = Field(default_factory=FusedVectorLayout, description="Layout of the tokens.")
    trunk: Trunk = Field(default_factory=NativeTransformerTrunk, description="From the tokens to one vector.")


class UnifiedFusion(Block):
    """Early fusion: all tokens of the image and of the vector are one sequence, read by one trunk."""

    kind: Literal["unified"] = "unified"
    out_features: Width = Field(default=512, description=_OUT)
    d_model: Width = Field(default=256, description=_D_MODEL)
    num_vector_tokens: Width = Field(default=1, description="Tokens of the vector, >= 1.")
    trunk: Trunk = Field(default_factory=NativeTransformerTrunk, description="From the tokens to one vector.")


Fusion = Annotated[Absent | VisionTransformerFusion | PostConcatFusion | UnifiedFusion, Field(discriminator="kind")]
