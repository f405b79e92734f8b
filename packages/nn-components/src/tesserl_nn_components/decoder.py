"""Dueling decoder of quantile networks; each stream is an MLP or a transformer."""

from __future__ import annotations

import functools
import math

from torch import Tensor, nn
from torch.nn.functional import pad

from tesserl_nn_components.heads import Slot, combine_dueling
from tesserl_nn_components.mlp import MLP, Activation
from tesserl_nn_components.transformer import NormPlacement, Pooling, TokenEncoder, token_table


class TransformerSlot(nn.Module):
    """A transformer stream that splits its features into tokens.

    It splits the features into chunks of width ``d_model``, padding the last one with zeros, and adds a learned
    position to each. Transformer layers, pooling, a hidden layer and a linear layer follow.

    Args:
        in_features: width of the features.
        out_features: width of the output.
        d_model: width of a chunk.
        num_layers: transformer layers.
        num_heads: attention heads; divides ``d_model``.
        hidden_features: width of the hidden layer after pooling.
        feedforward_ratio: hidden width of the feed-forward networks divided by ``d_model``.
        dropout: probability in [0, 1].
        norm: LayerNorm before (``"pre"``) or after (``"post"``) each branch.
        pooling: ``"mean"``, ``"cls"`` or ``"attention"``, see :class:`TokenEncoder`.
        activation: makes the hidden layer's activation module.
        layer_norm: puts a LayerNorm before this activation.
        noisy: makes the hidden and the output layer :class:`NoisyLinear`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        d_model: int = 128,
        num_layers: int = 1,
        num_heads: int = 4,
        hidden_features: int = 512,
        feedforward_ratio: float = 4.0,
        dropout: float = 0.0,
        norm: NormPlacement = "pre",
        pooling: Pooling = "mean",
        activation: Activation = nn.ReLU,
        layer_norm: bool = False,
        noisy: bool = False,
    ) -> None:
        super().__init__()
        self.out_features = out_features
        self.num_chunks = math.ceil(in_features / d_model)
        self.padding = self.num_chunks * d_model - in_features
        self.encoder = TokenEncoder(
            d_model,
            num_layers,
            num_heads,
            feedforward_ratio=feedforward_ratio,
            dropout=dropout,
            norm=norm,
            pooling=pooling,
        )
        self.positions = nn.Parameter(token_table(self.num_chunks, d_model))
        self.readout = MLP(
            d_model, hidden_features, out_features, activation=activation, layer_norm=layer_norm, noisy=noisy
        )

    def reset_parameters(self) -> None:
        """Initialise the positions again; the layers inside do not change."""
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[*B, in_features]`` to ``[*B, out_features]``."""
        padded = pad(features, (0, self.padding)) if self.padding else features
        chunks = padded.reshape(-1, *self.positions.shape) + self.positions
        return self.readout(self.encoder(chunks)).reshape(*features.shape[:-1], self.out_features)


class QuantileDecoder(nn.Module):
    """``Z = V + A - mean_a(A)`` for each quantile, each stream an MLP or a transformer.

    Its input combines the features of a state with those of a quantile fraction (Dabney et al. 2018, arXiv:1806.06923).
    The streams are those of Wang et al. 2016 (arXiv:1511.06581).

    Args:
        in_features: width ``D`` of the features.
        num_actions: number of actions ``A``.
        num_blocks: number ``N`` of action blocks, each with its own advantages and value; None for one action.
        dueling: add the value stream; False returns the advantage stream alone.
        advantage: makes the advantage stream, e.g. ``functools.partial(MLP, hidden_sizes=[512], noisy=True)`` or
            ``functools.partial(TransformerSlot, d_model=128)``; None for an MLP with one hidden layer of 512.
        value: makes the value stream; None as for ``advantage``.
    """

    def __init__(
        self,
        in_features: int,
        num_actions: int,
        *,
        num_blocks: int | None = None,
        dueling: bool = True,
        advantage: Slot | None = None,
        value: Slot | None = None,
    ) -> None:
        super().__init__()
        blocks = 1 if num_blocks is None else num_blocks
        default: Slot = functools.partial(MLP, hidden_sizes=(512,))
        self.num_actions = num_actions
        self.num_blocks = num_blocks
        self.advantage = (advantage or default)(in_features=in_features, out_features=blocks * num_actions)
        self.value = (value or default)(in_features=in_features, out_features=blocks) if dueling else None

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[*B, K, D]`` to quantile values ``[*B, K, A]``, or ``[*B, K, N, A]`` with blocks."""
        value = None if self.value is None else self.value(features)
        return combine_dueling(self.advantage(features), value, self.num_blocks)
