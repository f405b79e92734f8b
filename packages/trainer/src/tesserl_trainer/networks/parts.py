"""Helpers of several parts of a network: activations, options of transformers and models, errors that name a key."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypedDict

import torch
from torch import nn

from tesserl_configs import ConfigError
from tesserl_configs.layers import HFOptions, TransformerOptions

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
# Errors of transformers for a model that is missing, incomplete or of another kind than expected
HF_ERRORS = (AttributeError, ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError)


class Attention(TypedDict):
    """Arguments of every module with transformer layers."""

    num_heads: int
    feedforward_ratio: float
    dropout: float
    norm: Literal["pre", "post"]
    pooling: Literal["mean", "cls", "attention"]


def attention(config: TransformerOptions) -> Attention:
    """Return the arguments of modules with transformer layers."""
    return Attention(
        num_heads=config.num_heads,
        feedforward_ratio=config.feedforward_ratio,
        dropout=config.dropout,
        norm=config.norm,
        pooling=config.pooling,
    )


class HFModel(TypedDict):
    """Arguments that select a Hugging Face model."""

    model: object
    revision: str | None
    local_files_only: bool
    trust_remote_code: bool
    dropout: float


def hf_model(config: HFOptions) -> HFModel:
    """Return the arguments that select a model; on the meta device only its configuration is read."""
    model: object = config.model
    if torch.get_default_device().type == "meta":
        transformers = importlib.import_module("transformers")
        model = transformers.AutoConfig.from_pretrained(
            config.model,
            revision=config.revision,
            local_files_only=config.local_files_only,
            trust_remote_code=config.trust_remote_code,
        )
    return HFModel(
        model=model,
        revision=config.revision,
        local_files_only=config.local_files_only,
        trust_remote_code=config.trust_remote_code,
        dropout=config.dropout,
    )


@contextmanager
def named(place: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn errors into ConfigErrors that begin with the key at fault."""
    try:
        yield
    except errors as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ConfigError(f"{place}: {kind}{error}") from error
