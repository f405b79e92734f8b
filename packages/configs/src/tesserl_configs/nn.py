"""``nn:``, the network; each part is a union of blocks, chosen by ``kind``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, model_validator

from tesserl_configs.base import (
    Absent,
    Block,
    Layers,
    LayersFromZero,
    ModuleAndName,
    Positive,
    Real,
    Width,
    Widths,
)
from tesserl_configs.fusion import Fusion
from tesserl_configs.layers import ACTIVATION, Activation, TransformerOptions
from tesserl_configs.vision import Vision

Part = Literal[
    "body",
    "vision",
    "vector",
    "fusion",
    "trunk",
    "memory",
    "embedding",
    "heads",
    "shared",
    "advantage",
    "policy",
    "value",
]

# --- vector: the encoder of vector observations ------------------------------------------------------------------


class PlainNormalization(Block):
    """Leave observations as they are, or normalise them by running statistics."""

    kind: Literal["none", "running"] = Field(
        default="none",
        description=(
            "none: no normalisation; running: by mean and variance of all observations seen in training, clipped to "
            "10 standard deviations."
        ),
    )


class FixedNormalization(Block):
    """Normalise observations as (x - mean) / std with given statistics."""

    kind: Literal["fixed"] = "fixed"
    mean: tuple[Real, ...] = Field(description="Mean of each feature, in the feature's unit.")
    std: tuple[Positive, ...] = Field(description="Standard deviation of each feature, in the feature's unit, > 0.")


Normalization = Annotated[PlainNormalization | FixedNormalization, Field(discriminator="kind")]


class MLPVector(Block):
    """Normalisation and a multilayer perceptron."""

    kind: Literal["mlp"] = "mlp"
    normalization: Normalization = Field(
        default_factory=PlainNormalization, description="Normalisation of observations before the first layer."
    )
    hidden_sizes: Widths = Field(default=(64, 64), description="Widths of the layers, >= 1; empty: normalisation only.")
    activation: Activation = Field(default="relu", description="Activation after each layer.")
    layer_norm: bool = Field(default=False, description="Apply LayerNorm before each activation.")


Vector = Annotated[Absent | MLPVector, Field(discriminator="kind")]

# --- memory: what an episode has shown so far ---------------------------------------------------------------------


class RecurrentMemory(Block):
    """A recurrent network whose state is 0 at the start of an episode."""

    kind: Literal["gru", "lstm"] = Field(
        description=(
            "gru: gated recurrent unit (Cho et al. 2014, arXiv:1406.1078); lstm: long short-term memory (Hochreiter & "
            "Schmidhuber 1997)."
        )
    )
    hidden_size: Width = Field(
        default=128,
        description="Width of the recurrent state, and of the features passed to the heads, >= 1 (CleanRL: 128).",
    )
    num_layers: Layers = Field(default=1, description="Number of stacked recurrent layers, >= 1.")


Memory = Annotated[Absent | RecurrentMemory, Field(discriminator="kind")]

# --- heads: from features to values or to a policy ---------------------------------------------------------------


class MLPStream(Block):
    """A multilayer perceptron."""

    kind: Literal["mlp"] = "mlp"
    hidden_sizes: Widths = Field(default=(512,), description="Widths of the hidden layers, >= 1; empty: linear.")


class TransformerStream(TransformerOptions):
    """Transformer layers over chunks of the features, then pooling and one hidden layer."""

    kind: Literal["transformer"] = "transformer"
    d_model: Width = Field(default=128, description="Width of a chunk, >= 1; a multiple of num_heads.")
    num_layers: LayersFromZero = Field(default=1, description="Number of transformer layers, >= 0.")
    hidden_features: Width = Field(default=512, description="Width of the hidden layer after pooling, >= 1.")


Stream = Annotated[MLPStream | TransformerStream, Field(discriminator="kind")]


class HeadsConfig(Block):
    """Heads that turn features into action values, or into a policy and its value."""

    hidden_sizes: Widths = Field(
        default=(512,),
        description=(
            "Widths of the hidden layers of each stream that has no block of its own, >= 1 (IQN paper: 512); empty: a "
            "linear layer."
        ),
    )
    shared_hidden_sizes: Widths = Field(
        default=(),
        description=(
            "Widths of the hidden layers shared by policy and value, between body and streams, >= 1; empty: none. Not "
            "for iqn; algorithms without a value use them for the policy."
        ),
    )
    activation: Activation = Field(default="relu", description=ACTIVATION)
    layer_norm: bool = Field(default=False, description="Apply LayerNorm before each activation.")
    dueling: bool = Field(
        default=False, description="Use separate value and advantage streams (Wang et al. 2016); iqn only."
    )
    noisy: bool = Field(
        default=False, description="Use noisy linear layers with sigma 0.5 (Fortunato et al. 2018); iqn only."
    )
    advantage: Stream | None = Field(
        default=None,
        description="Stream of the advantages, or of all action values if not dueling; iqn only. null: an MLP.",
    )
    policy: Stream | None = Field(default=None, description="Stream of the policy; not for iqn. null: an MLP.")
    value: Stream | None = Field(
        default=None, description="Stream of the state value; for iqn only if dueling. null: an MLP."
    )


class LearningRateFactors(Block):
    """Learning rate of each part divided by that of the optimizer; 1: the same."""

    body: Positive = Field(default=1.0, description="Learning rate factor of your own body, > 0.")
    vision: Positive = Field(default=1.0, description="Learning rate factor of the image encoder, > 0.")
    vector: Positive = Field(default=1.0, description="Learning rate factor of the vector encoder, > 0.")
    fusion: Positive = Field(
        default=1.0, description="Learning rate factor of everything between encoders and heads except the memory, > 0."
    )
    trunk: Positive = Field(default=1.0, description="Learning rate factor of the trunk of the fusion only, > 0.")
    memory: Positive = Field(default=1.0, description="Learning rate factor of the memory, > 0.")
    embedding: Positive = Field(
        default=1.0, description="Learning rate factor of the embedding of quantile fractions, > 0."
    )
    heads: Positive = Field(default=1.0, description="Learning rate factor of all heads, > 0.")
    shared: Positive = Field(
        default=1.0, description="Learning rate factor of only the hidden layers shared by policy and value, > 0."
    )
    advantage: Positive = Field(default=1.0, description="Learning rate factor of the stream of advantages only, > 0.")
    policy: Positive = Field(default=1.0, description="Learning rate factor of the stream of the policy only, > 0.")
    value: Positive = Field(default=1.0, description="Learning rate factor of the stream of the state value only, > 0.")

    def by_part(self) -> dict[Part, float]:
        """Return the factor of each part."""
        return {
            "body": self.body,
            "vision": self.vision,
            "vector": self.vector,
            "fusion": self.fusion,
            "trunk": self.trunk,
            "memory": self.memory,
            "embedding": self.embedding,
            "heads": self.heads,
            "shared": self.shared,
            "advantage": self.advantage,
            "policy": self.policy,
            "value": self.value,
        }


class NNConfig(Block):
    """The network."""

    body: ModuleAndName | None = Field(
        default=None,
        description=(
            '"module:callable" that makes your own body in place of vision, vector and fusion, called as '
            'callable(observation_space, **kwargs); `kind: "module:callable"` is a shorthand. null: build the body '
            "from vision, vector and fusion."
        ),
    )
    kwargs: dict[str, JsonValue] = Field(default_factory=dict, description="Arguments of body, by name.")
    vision: Vision = Field(default_factory=Absent, description="Encoder of images; none for a task without images.")
    vector: Vector = Field(
        default_factory=Absent, description="Encoder of vector observations; none for a task without vectors."
    )
    fusion: Fusion = Field(
        default_factory=Absent, description="Fusion of image and vector features; none: concatenation."
    )
    memory: Memory = Field(
        default_factory=Absent,
        description="Memory between the features and the heads, not for iqn; none: the heads see a single step.",
    )
    heads: HeadsConfig = Field(
        default_factory=HeadsConfig, description="Heads that turn features into action values or a policy."
    )
    freeze: tuple[Part, ...] = Field(
        default=(),
        description=(
            "Parts that do not learn: no gradient, no optimiser state, fixed statistics, no dropout. body is your "
            "own; fusion is everything between encoders and heads except the memory, with trunk as a part; embedding "
            "is that of quantile fractions; shared are the hidden layers shared by policy and value, a part of heads."
        ),
    )
    learning_rate_factors: LearningRateFactors = Field(
        default_factory=LearningRateFactors,
        description="Learning rates of parts, as factors of optimizer.learning_rate.",
    )

    @property
    def may_see_images(self) -> bool:
        """Return whether the network may read images: it has an image encoder or a user-defined body."""
        return self.vision.kind != "none" or self.body is not None

    @property
    def may_see_vectors(self) -> bool:
        """Return whether the network may read vectors: it has a vector encoder or a user-defined body."""
        return self.vector.kind != "none" or self.body is not None

    @model_validator(mode="before")
    @classmethod
    def _own_body(cls, data: Any) -> Any:
        """Read ``{kind: "module:callable", ...}`` as a body of that name."""
        if isinstance(data, dict) and isinstance(kind := data.get("kind"), str) and ":" in kind and "body" not in data:
            return {**{key: value for key, value in data.items() if key != "kind"}, "body": kind}
        return data
