"""Interfaces for sending weights to collector workers."""

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

Flat = Mapping[str, NDArray[Any]]
"""The tensors of a state dict, concatenated to one vector per dtype."""


class Weights(Protocol):
    """The learner's side, which publishes weights to all workers."""

    def has_room(self, reading: Collection[int]) -> bool:
        """Return whether another version can be published while workers may still read older versions.

        Args:
            reading: versions of open questions.
        """

    def publish(self, tensors: Mapping[str, Tensor], version: int) -> None:
        """Publish a version."""


class LoadedWeights(Protocol):
    """The worker's side, which copies published weights into a network."""

    def load(self, tensors: Mapping[str, Tensor], version: int) -> None:
        """Copy a version into the tensors of a network; raise ``RuntimeError`` if it is not available."""


class SentWeights:
    """The worker's side if weights are sent to it; stores the last weights received."""

    def __init__(self) -> None:
        self._flat: Flat = {}
        self._version: int | None = None

    def put(self, flat: Flat, version: int) -> None:
        """Store weights until the next call.

        Args:
            flat: result of ``flatten``.
            version: number of updates that made the weights.
        """
        self._flat, self._version = {name: vector.copy() for name, vector in flat.items()}, version

    def load(self, tensors: Mapping[str, Tensor], version: int) -> None:
        """Copy the weights into the tensors of a network, see `LoadedWeights`."""
        if version != self._version:
            raise RuntimeError(f"weights: expected version {version}, got {self._version}")
        places = dict.fromkeys(self._flat, 0)
        with torch.no_grad():
            for tensor in tensors.values():
                name, size = str(tensor.dtype), tensor.numel()
                part = torch.from_numpy(self._flat[name][places[name] : places[name] + size])
                tensor.copy_(part.reshape(tensor.shape))
                places[name] += size
        sizes = {name: len(vector) for name, vector in self._flat.items()}
        if places != sizes:
            raise RuntimeError(f"weights: expected vectors of {places} numbers, got {sizes}")


def flatten(tensors: Mapping[str, Tensor]) -> Flat:
    """Copy the tensors of a state dict, in order, to one vector per dtype."""
    by_dtype: dict[str, list[Tensor]] = {}
    for tensor in tensors.values():
        by_dtype.setdefault(str(tensor.dtype), []).append(tensor.detach().flatten().cpu())
    return {name: torch.cat(parts).numpy() for name, parts in by_dtype.items()}
