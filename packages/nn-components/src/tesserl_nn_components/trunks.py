"""Trunks: modules that map the tokens of a fusion to one vector.

A trunk is built from (num_tokens, d_model) and maps tokens ``[*B, num_tokens, d_model]`` to ``[*B, out_features]``. A
fusion takes a trunk as a callable of these two arguments, e.g. ``functools.partial(TransformerTrunk, num_layers=2)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from tesserl_nn_components.hf import release_unused
from tesserl_nn_components.hf_loading import hf_model
from tesserl_nn_components.mlp import MLP, Activation
from tesserl_nn_components.transformer import NormPlacement, Pooling, TokenEncoder

TrunkFactory = Callable[[int, int], nn.Module]


class LinearTrunk(nn.Module):
    """The mean over the tokens; the fusion's last linear layer follows it.

    Args:
        num_tokens: number of tokens.
        d_model: token width.
    """

    def __init__(self, num_tokens: int, d_model: int) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.out_features = d_model

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens ``[*B, L, d]`` to ``[*B, d]``."""
        return tokens.mean(-2)


class TransformerTrunk(nn.Module):
    """Transformer layers and pooling.

    Args:
        num_tokens: number of tokens.
        d_model: token width.
        num_layers: transformer layers; 0 pools the input tokens.
        num_heads: attention heads; divides ``d_model``.
        feedforward_ratio: hidden width of the feed-forward networks divided by ``d_model``.
        dropout: probability in [0, 1].
        norm: LayerNorm before (``"pre"``) or after (``"post"``) each branch.
        pooling: ``"mean"``, ``"cls"`` or ``"attention"``, see :class:`TokenEncoder`.
    """

    def __init__(
        self,
        num_tokens: int,
        d_model: int,
        *,
        num_layers: int = 2,
        num_heads: int = 4,
        feedforward_ratio: float = 4.0,
        dropout: float = 0.0,
        norm: NormPlacement = "pre",
        pooling: Pooling = "mean",
    ) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.out_features = d_model
        self.encoder = TokenEncoder(
            d_model,
            num_layers,
            num_heads,
            feedforward_ratio=feedforward_ratio,
            dropout=dropout,
            norm=norm,
            pooling=pooling,
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens ``[*B, L, d]`` to ``[*B, d]``."""
        return self.encoder(_as_sequences(tokens)).reshape(*tokens.shape[:-2], self.out_features)


class MLPTrunk(nn.Module):
    """An MLP over all tokens concatenated, with a linear output layer.

    Args:
        num_tokens: number of tokens.
        d_model: token width, in and out.
        hidden_sizes: widths of the hidden layers.
        activation: makes the activation module.
        dropout: probability in [0, 1], after each activation.
    """

    def __init__(
        self,
        num_tokens: int,
        d_model: int,
        *,
        hidden_sizes: int | Sequence[int] = (512,),
        activation: Activation = nn.ReLU,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.out_features = d_model

        def activate() -> nn.Module:
            return nn.Sequential(activation(), nn.Dropout(dropout)) if dropout else activation()

        self.mlp = MLP(num_tokens * d_model, hidden_sizes, d_model, activation=activate)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens ``[*B, L, d]`` to ``[*B, d]``."""
        return self.mlp(tokens.flatten(-2))


class CNNTrunk(nn.Module):
    """Convolutions along the tokens, their mean, a linear layer.

    Args:
        num_tokens: number of tokens.
        d_model: token width, in and out.
        channels: output channels of each convolution.
        kernel_size: number of neighbouring tokens that a convolution reads; odd, so that the sequence keeps its length.
        activation: makes the activation module.
        dropout: probability in [0, 1] of dropping a channel, after each activation.

    Raises:
        ValueError: if there is no convolution, or ``kernel_size`` is not odd and positive.
    """

    def __init__(
        self,
        num_tokens: int,
        d_model: int,
        *,
        channels: Sequence[int] = (256, 256),
        kernel_size: int = 3,
        activation: Activation = nn.ReLU,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not channels or min(channels) < 1 or kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(
                f"channels must be positive, at least one, and kernel_size odd, got {channels=}, {kernel_size=}"
            )
        self.num_tokens = num_tokens
        self.out_features = d_model
        layers: list[nn.Module] = []
        fan_in = d_model
        for width in channels:
            layers += [nn.Conv1d(fan_in, width, kernel_size, padding=kernel_size // 2), activation()]
            layers += [nn.Dropout1d(dropout)] if dropout else []
            fan_in = width
        self.layers = nn.Sequential(*layers)
        self.project = nn.Linear(fan_in, d_model)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens ``[*B, L, d]`` to ``[*B, d]``."""
        pooled = self.layers(_as_sequences(tokens).transpose(1, 2)).mean(-1)
        return self.project(pooled).reshape(*tokens.shape[:-2], self.out_features)


class HFEmbeddingTrunk(nn.Module):
    """The mean output of a Hugging Face text model that reads the tokens as its input embeddings.

    The model adds its own positions to the tokens. Needs the extra ``tesserl-nn-components[hf]``.

    Args:
        num_tokens: number of tokens.
        d_model: token width, in and out.
        model: name on the hub, local directory, ``transformers`` configuration or built model, as for
            :class:`HFVisionEncoder`.
        revision: branch, tag or commit on the hub.
        local_files_only: never download.
        trust_remote_code: run code that the hub's repository contains.
        dropout: probability in [0, 1], on the projected tokens.

    Raises:
        ValueError: if the model has fewer positions than there are tokens.
        ImportError: if transformers is not installed.
    """

    def __init__(
        self,
        num_tokens: int,
        d_model: int,
        *,
        model: Any,
        revision: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.out_features = d_model
        self.model = hf_model(
            model, revision=revision, local_files_only=local_files_only, trust_remote_code=trust_remote_code
        )
        positions = getattr(self.model.config, "max_position_embeddings", None)
        if positions is not None and num_tokens > positions:
            raise ValueError(
                f"the model must have a position for each of {num_tokens} tokens, got {positions}; "
                "use fewer tokens or another model"
            )
        width = self.model.config.hidden_size
        self.embed = nn.Sequential(nn.Linear(d_model, width), nn.Dropout(dropout))
        self.project = nn.Linear(width, d_model)
        release_unused(self.model, self._encode, num_tokens, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens ``[*B, L, d]`` to ``[*B, d]``."""
        encoded = self._encode(self.embed(_as_sequences(tokens)))
        return self.project(encoded.mean(1)).reshape(*tokens.shape[:-2], self.out_features)

    def _encode(self, embeddings: Tensor) -> Tensor:
        """Run the model on ``[B, L, width]`` and return the same shape."""
        return self.model(inputs_embeds=embeddings).last_hidden_state


def _as_sequences(tokens: Tensor) -> Tensor:
    """Reshape tokens ``[*B, L, d]`` to ``[prod(B), L, d]``."""
    return tokens if tokens.dim() == 3 else tokens.reshape(-1, *tokens.shape[-2:])
