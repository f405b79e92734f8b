"""Bodies that join the image and the vector branch.

All have the parts ``vision`` and ``vector``: the encoders given to them, or None. The bodies that use tokens also have
``tokens``, ``trunk`` and ``bridge``. Pass these names to :func:`freeze`.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from tesserl_nn_components.calls import run
from tesserl_nn_components.tokens import DenseTokenizer, TokenSequence, VectorTokens
from tesserl_nn_components.trunks import LinearTrunk, TrunkFactory

ImageTokens = Literal["summary", "all"]


class ConcatFusion(nn.Module):
    """Concatenate image and vector features; with only one encoder, return its features unchanged.

    It is a body: ``in_keys`` lists the names of its inputs in order, ``out_features`` is the width of its output.

    Args:
        vision: encoder of images with ``out_features``; None for no image.
        vector: encoder of vectors with ``out_features``; None for no vector.

    Raises:
        ValueError: if there is no encoder.
    """

    def __init__(self, *, vision: nn.Module | None = None, vector: nn.Module | None = None) -> None:
        super().__init__()
        self.vision = vision
        self.vector = vector
        self.in_keys = _branch_keys(vision, vector)
        self.out_features = _width(vision) + _width(vector)

    def forward(self, *tensors: Tensor) -> Tensor:
        """Map tensors in the order of ``in_keys`` to features ``[*B, out_features]``.

        Args:
            *tensors: pixels ``[*B, C, H, W]``, observation ``[*B, F]``, or both in this order.

        Raises:
            ValueError: if the number of tensors differs from the length of ``in_keys``.
        """
        return _joint_vector(self.vision, self.vector, *_split(tensors, self.in_keys))


class VisionTransformerFusion(nn.Module):
    """Late fusion: reduce the image to a vector of width ``vision_features``, then join it with the vector features.

    Without a trunk, one linear layer maps the joint vector to ``out_features``. With a trunk, a linear layer maps it to
    ``num_tokens`` tokens; the trunk and another linear layer follow. Without an image the joint vector has no image
    part.

    Args:
        vision: encoder of images, e.g. :class:`PatchViT`, :class:`HFVisionEncoder` or a CNN; None for no image.
        vector: encoder of vectors; None for no vector.
        out_features: width of the output.
        vision_features: width to which a linear layer maps the image features; None keeps their width.
        trunk: see :mod:`tesserl_nn_components.trunks`; None for a single linear layer.
        d_model: token width, for a trunk.
        num_tokens: number of tokens, for a trunk.

    Raises:
        ValueError: if there is no encoder.
    """

    def __init__(
        self,
        *,
        vision: nn.Module | None = None,
        vector: nn.Module | None = None,
        out_features: int,
        vision_features: int | None = None,
        trunk: TrunkFactory | None = None,
        d_model: int = 256,
        num_tokens: int = 4,
    ) -> None:
        super().__init__()
        self.in_keys = _branch_keys(vision, vector)
        if vision is not None and vision_features is not None:
            vision = _Projected(vision, vision_features)
        self.vision = vision
        self.vector = vector
        self.out_features = out_features
        joint = _width(vision) + _width(vector)
        self.tokens: nn.Module = nn.Identity()
        self.trunk: nn.Module = nn.Identity()
        if trunk is not None:
            self.tokens = DenseTokenizer(joint, d_model, num_tokens)
            self.trunk = trunk(num_tokens, d_model)
            joint = _width(self.trunk)
        self.bridge = nn.Linear(joint, out_features)

    def forward(self, *tensors: Tensor) -> Tensor:
        """Map tensors in the order of ``in_keys`` to features ``[*B, out_features]``."""
        joint = _joint_vector(self.vision, self.vector, *_split(tensors, self.in_keys))
        return self.bridge(self.trunk(self.tokens(joint)))


class PostConcatFusion(nn.Module):
    """Fusion of encoded branches by a trunk over tokens.

    Args:
        vision: encoder of images; None for no image.
        vector: encoder of vectors; None for no vector. Its output becomes the tokens: the normalised features if it has
            no layers, otherwise the output of its last layer.
        out_features: width of the output, by a linear layer after the trunk.
        d_model: token width ``d``.
        layout: ``"fused_vector"``: image and vector features are concatenated and one linear layer makes ``num_tokens``
            tokens of them; ``"token_sequence"``: image and vector have separate tokens.
        trunk: see :mod:`tesserl_nn_components.trunks`.
        num_tokens: number of tokens of a fused vector, or of ``"dense"`` vector tokens.
        image_tokens: for ``"token_sequence"``: ``"summary"``, one token of the image, or ``"all"`` tokens of the
            encoder before its pooling. With ``"all"`` give the encoder the pooling ``"mean"``: the other poolings would
            leave parameters unused.
        vector_tokens: for ``"token_sequence"``: ``"dense"`` or ``"per_feature"``, see :class:`TokenSequence`.

    Raises:
        ValueError: if there is no encoder, or an option is unknown.
        TypeError: if ``image_tokens`` is ``"all"`` and the encoder has no tokens.
    """

    def __init__(
        self,
        *,
        vision: nn.Module | None = None,
        vector: nn.Module | None = None,
        out_features: int,
        d_model: int,
        layout: Literal["fused_vector", "token_sequence"] = "fused_vector",
        trunk: TrunkFactory = LinearTrunk,
        num_tokens: int = 4,
        image_tokens: ImageTokens = "summary",
        vector_tokens: VectorTokens = "dense",
    ) -> None:
        super().__init__()
        if layout not in ("fused_vector", "token_sequence"):
            raise ValueError(f'layout must be "fused_vector" or "token_sequence", got {layout!r}')
        if image_tokens not in ("summary", "all"):
            raise ValueError(f'image_tokens must be "summary" or "all", got {image_tokens!r}')
        if image_tokens == "all" and vision is not None and not _has_tokens(vision):
            raise TypeError(f'{type(vision).__name__} has no tokens(); use image_tokens="summary"')
        self.in_keys = _branch_keys(vision, vector)
        self.vision = vision
        self.vector = vector
        self.out_features = out_features
        self.all_image_tokens = image_tokens == "all"
        self.tokens: DenseTokenizer | TokenSequence
        if layout == "fused_vector":
            self.tokens = DenseTokenizer(_width(vision) + _width(vector), d_model, num_tokens)
        else:
            self.tokens = _sequence(vision, vector, d_model, self.all_image_tokens, vector_tokens, num_tokens)
        self.trunk = trunk(self.tokens.num_tokens, d_model)
        self.bridge = nn.Linear(_width(self.trunk), out_features)

    def forward(self, *tensors: Tensor) -> Tensor:
        """Map tensors in the order of ``in_keys`` to features ``[*B, out_features]``."""
        pixels, observation = _split(tensors, self.in_keys)
        if isinstance(self.tokens, DenseTokenizer):
            tokens = self.tokens(_joint_vector(self.vision, self.vector, pixels, observation))
        else:
            image = None if self.vision is None else _image_tokens(self.vision, pixels, self.all_image_tokens)
            tokens = self.tokens(image, None if self.vector is None else self.vector(observation))
        return self.bridge(self.trunk(tokens))


class UnifiedFusion(nn.Module):
    """Early fusion: one trunk reads all image tokens and dense vector tokens as one sequence.

    An encoder without ``tokens()``, e.g. a CNN, contributes one token. The usual encoders are
    ``PatchViT(num_layers=0)``, whose tokens are the embedded patches, and a :class:`VectorEncoder` without layers.
    Tokens are taken before the encoder's pooling, so give the encoder the pooling ``"mean"``: the other poolings would
    leave parameters unused.

    Args:
        vision: encoder of images; None for no image.
        vector: encoder of vectors; None for no vector.
        out_features: width of the output, by a linear layer after the trunk.
        d_model: token width ``d``.
        trunk: see :mod:`tesserl_nn_components.trunks`.
        num_vector_tokens: number of vector tokens.

    Raises:
        ValueError: if there is no encoder.
    """

    def __init__(
        self,
        *,
        vision: nn.Module | None = None,
        vector: nn.Module | None = None,
        out_features: int,
        d_model: int,
        trunk: TrunkFactory = LinearTrunk,
        num_vector_tokens: int = 1,
    ) -> None:
        super().__init__()
        self.in_keys = _branch_keys(vision, vector)
        self.vision = vision
        self.vector = vector
        self.out_features = out_features
        self.all_image_tokens = vision is not None and _has_tokens(vision)
        self.tokens = _sequence(vision, vector, d_model, self.all_image_tokens, "dense", num_vector_tokens)
        self.trunk = trunk(self.tokens.num_tokens, d_model)
        self.bridge = nn.Linear(_width(self.trunk), out_features)

    def forward(self, *tensors: Tensor) -> Tensor:
        """Map tensors in the order of ``in_keys`` to features ``[*B, out_features]``."""
        pixels, observation = _split(tensors, self.in_keys)
        image = None if self.vision is None else _image_tokens(self.vision, pixels, self.all_image_tokens)
        return self.bridge(self.trunk(self.tokens(image, None if self.vector is None else self.vector(observation))))


class _Projected(nn.Module):
    """An encoder and a linear layer as one part, so that :func:`freeze` freezes both."""

    def __init__(self, encoder: nn.Module, out_features: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.project = nn.Linear(_width(encoder), out_features)
        self.out_features = out_features

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels ``[*B, C, H, W]`` to ``[*B, out_features]``."""
        return self.project(self.encoder(pixels))


def _branch_keys(vision: nn.Module | None, vector: nn.Module | None) -> list[str]:
    """Return the ``in_keys`` of a body with these branches."""
    if vision is None and vector is None:
        raise ValueError("a body needs vision=, vector= or both, got neither")
    return [key for key, branch in (("pixels", vision), ("observation", vector)) if branch is not None]


def _split(tensors: tuple[Tensor, ...], in_keys: list[str]) -> tuple[Any, Any]:
    """Return (pixels, observation); an input that ``in_keys`` lacks is None.

    Raises:
        ValueError: if the number of tensors differs from the length of ``in_keys``.
    """
    if len(tensors) != len(in_keys):
        raise ValueError(f"the body takes one tensor for each of {in_keys}, got {len(tensors)} tensors")
    if len(tensors) == 2:
        return tensors
    return (tensors[0], None) if in_keys[0] == "pixels" else (None, tensors[0])


def _width(part: nn.Module | None) -> int:
    """Return ``part.out_features``, or 0 for None."""
    width = 0 if part is None else getattr(part, "out_features", None)
    if not isinstance(width, int):
        raise TypeError(f"encoders and trunks must have out_features: int, got {type(part).__name__} with {width!r}")
    return width


def _joint_vector(vision: Any, vector: Any, pixels: Any, observation: Any) -> Tensor:
    """Return the features of both branches side by side, ``[*B, out_features of both]``."""
    if vision is None:
        return run(vector, observation)
    if vector is None:
        return run(vision, pixels)
    return torch.cat([vision(pixels), vector(observation)], dim=-1)


def _has_tokens(vision: nn.Module) -> bool:
    """Return whether an encoder has a ``tokens()`` method besides its pooled output."""
    return callable(getattr(vision, "tokens", None))


def _image_tokens(vision: Any, pixels: Tensor, all_tokens: bool) -> Tensor:
    """Return image tokens ``[*B, P, out_features]``, or the pooled output as a single token."""
    return vision.tokens(pixels) if all_tokens else vision(pixels).unsqueeze(-2)


def _sequence(
    vision: Any, vector: Any, d_model: int, all_image_tokens: bool, vector_tokens: VectorTokens, num_vector_tokens: int
) -> TokenSequence:
    """Return the token sequence of these branches."""
    return TokenSequence(
        image_features=None if vision is None else _width(vision),
        num_image_tokens=0 if vision is None else vision.num_tokens if all_image_tokens else 1,
        vector_features=None if vector is None else _width(vector),
        d_model=d_model,
        vector_tokens=vector_tokens,
        num_vector_tokens=num_vector_tokens,
    )
