"""``nn:``, the network: one tagged union for each of its parts."""

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
    """Observations as they are, or normalised by what training has seen."""

    kind: Literal["none", "running"] = Field(
        default="none",
        description=(
            "none: as they are; running: by mean and variance of all observations that training has seen, clipped to "
            "10 standard deviations."
        ),
    )


class FixedNormalization(Block):
    """(x - mean) / std with given statistics."""

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
    layer_norm: bool = Field(default=False, description="LayerNorm before each activation.")


Vector = Annotated[Absent | MLPVector, Field(discriminator="kind")]

# --- memory: what an episode has shown so far ---------------------------------------------------------------------


class RecurrentMemory(Block):
    """A recurrent network; its state is 0 where an episode begins."""

    kind: Literal["gru", "lstm"] = Field(
        description=(
            "gru: gated recurrent unit (Cho et al. 2014, arXiv:1406.1078); lstm: long short-term memory (Hochreiter & "
            "Schmidhuber 1997)."
        )
    )
    hidden_size: Width = Field(
        default=128, description="Width of the state and of the features that the heads see, >= 1 (CleanRL: 128)."
    )
    num_layers: Layers = Field(default=1, description="Recurrent layers, one above the other, >= 1.")


Memory = Annotated[Absent | RecurrentMemory, Field(discriminator="kind")]

# --- heads: from features to values or to a policy ---------------------------------------------------------------


class MLPStream(Block):
    """A multilayer perceptron."""

    kind: Literal["mlp"] = "mlp"
    hidden_sizes: Widths = Field(default=(512,), description="Widths of the hidden layers, >= 1; empty: linear.")


class TransformerStream(TransformerOptions):
    """Transformer layers over chunks of the features, pooling, one hidden layer."""

    kind: Literal["transformer"] = "transformer"
    d_model: Width = Field(default=128, description="Width of a chunk, >= 1; a multiple of num_heads.")
    num_layers: LayersFromZero = Field(default=1, description="Transformer layers, >= 0.")
    hidden_features: Width = Field(default=512, description="Width of the hidden layer after pooling, >= 1.")


Stream = Annotated[MLPStream | TransformerStream, Field(discriminator="kind")]


class HeadsConfig(Block):
    """Heads that turn features into action values, or into a policy and its value."""

    hidden_sizes: Widths = Field(
        default=(512,),
        description=(
            "Widths of the hidden layers of each stream that has no block of its own, >= 1 (IQN paper: 512); "
            "empty: linear, which is the default of ppo."
        ),
    )
    shared_hidden_sizes: Widths = Field(
        default=(),
        description=(
            "Widths of hidden layers that policy and value share, between their body and the streams, >= 1; without a "
            "value they are the policy's alone; not for iqn. Empty: none."
        ),
    )
    activation: Activation = Field(default="relu", description=ACTIVATION)
    layer_norm: bool = Field(default=False, description="LayerNorm before each activation.")
    dueling: bool = Field(
        default=False, description="Separate value and advantage streams (Wang et al. 2016); iqn only."
    )
    noisy: bool = Field(default=False, description="Noisy linear layers (Fortunato et al. 2018), sigma 0.5; iqn only.")
    advantage: Stream | None = Field(
        default=None, description="The stream of advantages (of all values, unless dueling), iqn only; null: an MLP."
    )
    policy: Stream | None = Field(
        default=None, description="The stream of the policy, not for iqn, which has none; null: an MLP."
    )
    value: Stream | None = Field(
        default=None, description="The stream of the state value, for iqn only if dueling; null: an MLP."
    )


class LearningRateFactors(Block):
    """The learning rate of each part over that of the optimizer; 1: the same."""

    body: Positive = Field(default=1.0, description="A body of yours, > 0.")
    vision: Positive = Field(default=1.0, description="Encoder of images, > 0.")
    vector: Positive = Field(default=1.0, description="Encoder of vectors, > 0.")
    fusion: Positive = Field(default=1.0, description="Everything between encoders and heads but the memory, > 0.")
    trunk: Positive = Field(default=1.0, description="The trunk of the fusion alone, > 0.")
    memory: Positive = Field(default=1.0, description="The memory, > 0.")
    embedding: Positive = Field(default=1.0, description="Embedding of quantile fractions, > 0.")
    heads: Positive = Field(default=1.0, description="All heads, > 0.")
    shared: Positive = Field(default=1.0, description="The hidden layers that policy and value share alone, > 0.")
    advantage: Positive = Field(default=1.0, description="The stream of advantages alone, > 0.")
    policy: Positive = Field(default=1.0, description="The head of the policy alone, > 0.")
    value: Positive = Field(default=1.0, description="The stream of the state value alone, > 0.")

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
            '"module:callable", called as callable(observation_space, **kwargs), which returns a body of yours in '
            'place of vision, vector and fusion; `kind: "module:callable"` is short for it. null: built from these.'
        ),
    )
    kwargs: dict[str, JsonValue] = Field(default_factory=dict, description="Arguments of body by name.")
    vision: Vision = Field(default_factory=Absent, description="Encoder of images; none: the task has no images.")
    vector: Vector = Field(
        default_factory=Absent, description="Encoder of vector observations; none: the task has none."
    )
    fusion: Fusion = Field(default_factory=Absent, description="Fusion of the two branches; none: concatenation.")
    memory: Memory = Field(
        default_factory=Absent,
        description="Memory between the features and the heads, not for iqn; none: heads see one step.",
    )
    heads: HeadsConfig = Field(default_factory=HeadsConfig, description="From features to values or to a policy.")
    freeze: tuple[Part, ...] = Field(
        default=(),
        description=(
            "Parts that do not learn: no gradient, no optimiser state, statistics fixed, dropout off. body is one of "
            "yours; fusion is all "
            "between encoders and heads but the memory, trunk a part of it; embedding is that of quantile fractions; "
            "shared the hidden layers that policy and value share, a part of heads."
        ),
    )
    learning_rate_factors: LearningRateFactors = Field(
        default_factory=LearningRateFactors,
        description="Learning rates of parts, as factors of optimizer.learning_rate.",
    )

    @property
    def may_see_images(self) -> bool:
        """Return whether images are read: by an encoder, or perhaps by a body of the user's."""
        return self.vision.kind != "none" or self.body is not None

    @property
    def may_see_vectors(self) -> bool:
        """Return whether vectors are read: by an encoder, or perhaps by a body of the user's."""
        return self.vector.kind != "none" or self.body is not None

    @model_validator(mode="before")
    @classmethod
    def _own_body(cls, data: Any) -> Any:
        """Read ``{kind: "module:callable", ...}`` as a body of that name."""
        if isinstance(data, dict) and isinstance(kind := data.get("kind"), str) and ":" in kind and "body" not in data:
            return {**{key: value for key, value in data.items() if key != "kind"}, "body": kind}
        return data
