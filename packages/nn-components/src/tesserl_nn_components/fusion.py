"""Bodies that join the image and the vector branch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class ConcatFusion(nn.Module):
    """Concatenate image and vector features; with one encoder alone it hands its features on.

    It is a body: ``in_keys`` names its inputs in order, ``out_features`` the width of its output.

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
        self.in_keys = branch_keys(vision, vector)
        self.out_features = sum(out_features_of(encoder) for encoder in (vision, vector) if encoder is not None)

    def forward(self, *tensors: Tensor) -> Tensor:
        """Map tensors in the order of ``in_keys`` to features ``[*B, out_features]``.

        Args:
            *tensors: pixels ``[*B, C, H, W]``, observation ``[*B, F]``, or both in this order.

        Raises:
            ValueError: if their number is not that of ``in_keys``.
        """
        pixels, observation = split_branches(tensors, self.in_keys)
        if self.vision is None:
            return self.vector(observation)  # type: ignore[misc]  # one of the two is there
        if self.vector is None:
            return self.vision(pixels)
        return torch.cat([self.vision(pixels), self.vector(observation)], dim=-1)


def branch_keys(vision: object | None, vector: object | None) -> list[str]:
    """Return the ``in_keys`` of a body with these branches.

    Raises:
        ValueError: if both are None.
    """
    if vision is None and vector is None:
        raise ValueError("a body needs vision=, vector= or both, got neither")
    return [key for key, branch in (("pixels", vision), ("observation", vector)) if branch is not None]


def split_branches(tensors: tuple[Tensor, ...], in_keys: list[str]) -> tuple[Any, Any]:
    """Return (pixels, observation), None for the one that ``in_keys`` lacks.

    Raises:
        ValueError: if there is not one tensor for each key.
    """
    if len(tensors) != len(in_keys):
        raise ValueError(f"the body takes one tensor for each of {in_keys}, got {len(tensors)} tensors")
    if len(tensors) == 2:
        return tensors
    return (tensors[0], None) if in_keys[0] == "pixels" else (None, tensors[0])


def out_features_of(encoder: nn.Module) -> int:
    """Return ``encoder.out_features``.

    Raises:
        TypeError: if it has none.
    """
    width = getattr(encoder, "out_features", None)
    if not isinstance(width, int):
        raise TypeError(f"an encoder must have out_features: int, got {type(encoder).__name__} with {width!r}")
    return width
