"""Convert features to tokens: a vector to K tokens or one per feature, and image and vector to one sequence.

Shapes: F features, L tokens, d = d_model.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from tesserl_nn_components.transformer import token_table

VectorTokens = Literal["dense", "per_feature"]


class DenseTokenizer(nn.Module):
    """One linear layer from a vector to ``num_tokens`` tokens; its bias distinguishes the tokens.

    Args:
        in_features: width ``F`` of the vector.
        d_model: token width ``d``.
        num_tokens: number of tokens.

    Raises:
        ValueError: if ``num_tokens`` is below 1.
    """

    def __init__(self, in_features: int, d_model: int, num_tokens: int = 1) -> None:
        super().__init__()
        if num_tokens < 1:
            raise ValueError(f"num_tokens must be at least 1, got {num_tokens}")
        self.d_model = d_model
        self.num_tokens = num_tokens
        self.linear = nn.Linear(in_features, num_tokens * d_model)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[*B, F]`` to tokens ``[*B, num_tokens, d]``."""
        return self.linear(features).reshape(*features.shape[:-1], self.num_tokens, self.d_model)


class FeatureTokenizer(nn.Module):
    """One token per feature: ``token_i = x_i weight_i + bias_i``.

    Gorishniy et al. 2021 (arXiv:2106.11959), section 3.3. Each feature has its own weight and bias. The bias
    distinguishes the tokens, so no position embedding is needed.

    Args:
        in_features: number ``F`` of features, and of tokens.
        d_model: token width ``d``.
    """

    def __init__(self, in_features: int, d_model: int) -> None:
        super().__init__()
        self.num_tokens = in_features
        bound = 1 / math.sqrt(d_model)
        self.weight = nn.Parameter(torch.empty(in_features, d_model).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(in_features, d_model).uniform_(-bound, bound))

    def reset_parameters(self) -> None:
        """Draw weights and biases again."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[*B, F]`` to tokens ``[*B, F, d]``."""
        return torch.addcmul(self.bias, features.unsqueeze(-1), self.weight)


class TokenSequence(nn.Module):
    """Join image tokens and vector features to one sequence of tokens of equal width.

    A linear layer projects image tokens to ``d_model``, even if they have this width already, so that the output of a
    frozen encoder can adapt. A tokenizer converts the vector to tokens. If both modalities are present, each gets a
    learned embedding. No positions are added: the encoder adds those of image tokens, and the tokenizer's bias
    distinguishes vector tokens.

    Args:
        image_features: width of the image tokens; None for no image.
        num_image_tokens: number of image tokens; 0 for no image.
        vector_features: width ``F`` of the vector; None for no vector.
        d_model: token width ``d``.
        vector_tokens: ``"dense"`` (:class:`DenseTokenizer`) or ``"per_feature"`` (:class:`FeatureTokenizer`).
        num_vector_tokens: number of ``"dense"`` tokens.

    Raises:
        ValueError: if ``vector_tokens`` is unknown.
    """

    def __init__(
        self,
        *,
        image_features: int | None,
        num_image_tokens: int,
        vector_features: int | None,
        d_model: int,
        vector_tokens: VectorTokens = "dense",
        num_vector_tokens: int = 1,
    ) -> None:
        super().__init__()
        if vector_tokens not in ("dense", "per_feature"):
            raise ValueError(f'vector_tokens must be "dense" or "per_feature", got {vector_tokens!r}')
        self.num_tokens = num_image_tokens
        self.image = None if image_features is None else nn.Linear(image_features, d_model)
        self.vector: DenseTokenizer | FeatureTokenizer | None = None
        if vector_features is not None:
            if vector_tokens == "dense":
                self.vector = DenseTokenizer(vector_features, d_model, num_vector_tokens)
            else:
                self.vector = FeatureTokenizer(vector_features, d_model)
            self.num_tokens += self.vector.num_tokens
        both = self.image is not None and self.vector is not None
        self.modalities = nn.Parameter(token_table(2, d_model)) if both else None  # needless for one modality

    def reset_parameters(self) -> None:
        """Draw the embeddings of the modalities again; the layers inside do not change."""
        if self.modalities is not None:
            nn.init.trunc_normal_(self.modalities, std=0.02)

    def forward(self, image: Tensor | None, vector: Tensor | None) -> Tensor:
        """Join image tokens and vector tokens.

        Args:
            image: tokens ``[*B, P, image_features]``; None for no image.
            vector: ``[*B, F]``; None for no vector.

        Returns:
            Tokens ``[*B, num_tokens, d]``, image tokens first.
        """
        if self.image is None or self.vector is None or self.modalities is None:
            part, features = (self.vector, vector) if self.image is None else (self.image, image)
            return part(features)  # type: ignore[misc]  # one of the two is there
        tokens = [self.image(image) + self.modalities[0], self.vector(vector) + self.modalities[1]]
        return torch.cat(tokens, dim=-2)
