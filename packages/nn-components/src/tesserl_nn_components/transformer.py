"""Transformer encoder for short sequences of tokens, with pooling.

Shapes: B batch, L tokens, d = d_model.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

NormPlacement = Literal["pre", "post"]
Pooling = Literal["mean", "cls", "attention"]


class TransformerLayer(nn.Module):
    """Self-attention and a GELU feed-forward network, each with a residual connection and a LayerNorm.

    Vaswani et al. 2017 (arXiv:1706.03762). It gives the same output as
    ``nn.TransformerEncoderLayer(activation="gelu")`` without the overhead of that layer's many branches, which
    dominates on short sequences.

    Args:
        d_model: token width ``d``.
        num_heads: attention heads; divides ``d_model``.
        feedforward_ratio: hidden width of the feed-forward network divided by ``d_model``.
        dropout: probability in [0, 1], on attention weights, on the hidden layer and on both residual branches.
        norm: ``"pre"``: LayerNorm before each branch (Xiong et al. 2020, arXiv:2002.04745); ``"post"``: after each sum.

    Raises:
        ValueError: if ``num_heads`` does not divide ``d_model``, or an argument is out of its range.
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        *,
        feedforward_ratio: float = 4.0,
        dropout: float = 0.0,
        norm: NormPlacement = "pre",
    ) -> None:
        super().__init__()
        if num_heads < 1 or d_model < 1 or d_model % num_heads:
            raise ValueError(
                f"num_heads must divide d_model, got d_model={d_model} and num_heads={num_heads}; "
                "choose d_model as a multiple of num_heads"
            )
        hidden = int(d_model * feedforward_ratio)
        if hidden < 1:
            raise ValueError(f"feedforward_ratio must leave a hidden width of at least 1, got {feedforward_ratio}")
        if norm not in ("pre", "post"):
            raise ValueError(f'norm must be "pre" or "post", got {norm!r}')
        self.num_heads = num_heads
        self.dropout = dropout
        self.pre_norm = norm == "pre"
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.project = nn.Sequential(nn.Linear(d_model, d_model), nn.Dropout(dropout))
        self.feedforward = nn.Sequential(
            nn.Linear(d_model, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, d_model), nn.Dropout(dropout)
        )
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens ``[B, L, d]`` to the same shape."""
        if self.pre_norm:
            tokens = tokens + self._attend(self.norm1(tokens))
            return tokens + self.feedforward(self.norm2(tokens))
        tokens = self.norm1(tokens + self._attend(tokens))
        return self.norm2(tokens + self.feedforward(tokens))

    def _attend(self, tokens: Tensor) -> Tensor:
        """Return self-attention without the residual connection, ``[B, L, d]``."""
        # [B, L, 3 d] -> three of [B, heads, L, d / heads]
        batch, length, width = tokens.shape
        heads = self.qkv(tokens).reshape(batch, length, 3, self.num_heads, width // self.num_heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        dropout = self.dropout if self.training else 0.0
        mixed = scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return self.project(mixed.transpose(1, 2).reshape(batch, length, width))


class TokenEncoder(nn.Module):
    """Transformer layers over tokens that already include positions, and pooling to one vector.

    Args:
        d_model: token width ``d``.
        num_layers: number of :class:`TransformerLayer`; 0 pools the input tokens.
        num_heads: attention heads; divides ``d_model``.
        feedforward_ratio: hidden width of the feed-forward networks divided by ``d_model``.
        dropout: probability in [0, 1].
        norm: ``"pre"`` or ``"post"``, see :class:`TransformerLayer`; with ``"pre"`` a final LayerNorm follows the
            layers.
        pooling: ``"mean"`` of the tokens; ``"cls"``, the output of a learned extra token; ``"attention"``, the mean
            weighted by a learned score (Ilse et al. 2018, arXiv:1802.04712).

    Raises:
        ValueError: if ``pooling`` is ``"cls"`` without layers, or an argument is out of its range.
    """

    def __init__(
        self,
        d_model: int,
        num_layers: int,
        num_heads: int,
        *,
        feedforward_ratio: float = 4.0,
        dropout: float = 0.0,
        norm: NormPlacement = "pre",
        pooling: Pooling = "mean",
    ) -> None:
        super().__init__()
        if num_layers < 0:
            raise ValueError(f"num_layers must be at least 0, got {num_layers}")
        if pooling == "cls" and num_layers == 0:
            raise ValueError('pooling "cls" needs num_layers of at least 1: without attention its token sees nothing')
        self.out_features = d_model
        self.class_token = nn.Parameter(token_table(1, d_model)) if pooling == "cls" else None
        self.layers = nn.Sequential(
            *(
                TransformerLayer(d_model, num_heads, feedforward_ratio=feedforward_ratio, dropout=dropout, norm=norm)
                for _ in range(num_layers)
            )
        )
        self.norm = nn.LayerNorm(d_model) if norm == "pre" and num_layers else nn.Identity()
        self.pool = TokenPooling(d_model, pooling)

    def reset_parameters(self) -> None:
        """Draw the class token again; the layers inside do not change."""
        if self.class_token is not None:
            nn.init.trunc_normal_(self.class_token, std=0.02)

    def tokens(self, tokens: Tensor) -> Tensor:
        """Encode tokens ``[B, L, d]`` to the same shape."""
        encoded = self._encode(tokens)
        return encoded if self.class_token is None else encoded[:, 1:]

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode tokens ``[B, L, d]`` and pool them to ``[B, d]``."""
        return self.pool(self._encode(tokens))

    def _encode(self, tokens: Tensor) -> Tensor:
        """Prepend the class token, if there is one, and encode all tokens."""
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.expand(tokens.shape[0], 1, -1), tokens], dim=1)
        return self.norm(self.layers(tokens))


class TokenPooling(nn.Module):
    """Pool tokens to one vector.

    Args:
        d_model: token width ``d``.
        pooling: ``"mean"``, the first token (``"cls"``), or the mean weighted by a learned score (``"attention"``).

    Raises:
        ValueError: if ``pooling`` is unknown.
    """

    def __init__(self, d_model: int, pooling: Pooling) -> None:
        super().__init__()
        if pooling not in ("mean", "cls", "attention"):
            raise ValueError(f'pooling must be "mean", "cls" or "attention", got {pooling!r}')
        self.pooling = pooling
        # No bias: it would cancel in the softmax over tokens
        self.score = nn.Linear(d_model, 1, bias=False) if pooling == "attention" else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens ``[*B, L, d]`` to ``[*B, d]``."""
        if self.score is not None:
            return (self.score(tokens).softmax(-2) * tokens).sum(-2)
        return tokens[..., 0, :] if self.pooling == "cls" else tokens.mean(-2)


def token_table(num_tokens: int, d_model: int) -> Tensor:
    """Return small random numbers for a table of positions or of modalities, ``[num_tokens, d_model]``."""
    return nn.init.trunc_normal_(torch.empty(num_tokens, d_model), std=0.02)
