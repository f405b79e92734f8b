"""Build the fusion of the encoders of images and vectors, and its trunk, from ``nn.fusion``."""

import functools
from typing import TypedDict

from torch import nn

from tesserl_configs import fusion as fusions
from tesserl_configs.base import Absent
from tesserl_nn_components import (
    CNNTrunk,
    ConcatFusion,
    HFEmbeddingTrunk,
    LinearTrunk,
    MLPTrunk,
    PostConcatFusion,
    TransformerTrunk,
    UnifiedFusion,
    VisionTransformerFusion,
)
from tesserl_nn_components.trunks import TrunkFactory
from tesserl_trainer.networks.parts import ACTIVATIONS, HF_ERRORS, attention, hf_model, named


def build_fusion(config: fusions.Fusion, vision: nn.Module | None, vector: nn.Module | None) -> nn.Module:
    """Build the fusion of the encoders; None stands for an input that the task does not have."""
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
    """Build the fusion that makes tokens from the outputs of the encoders."""
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
    """Return the function that builds the trunk for a number of tokens."""
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
