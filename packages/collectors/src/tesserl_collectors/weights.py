"""Weights on their way to collector workers."""

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

Flat = Mapping[str, NDArray[Any]]
"""The tensors of a state dict, joined to one vector for each dtype."""


class Weights(Protocol):
    """The learner's side: publishes weights to all workers."""

    def has_room(self, reading: Collection[int]) -> bool:
        """Return whether another version can be published while workers may read others.

        Args:
            reading: versions that workers were asked with and have not answered.
        """

    def publish(self, tensors: Mapping[str, Tensor], version: int) -> None:
        """Publish a version."""


class LoadedWeights(Protocol):
    """A worker's side: copies published weights into a network."""

    def load(self, tensors: Mapping[str, Tensor], version: int) -> None:
        """Copy a version into the tensors of a network; raise ``RuntimeError`` if it is not there."""


class SentWeights:
    """A worker's side where weights are sent to it: keeps the last ones that came."""

    def __init__(self) -> None:
        self._flat: Flat = {}
        self._version: int | None = None

    def put(self, flat: Flat, version: int) -> None:
        """Keep weights until other ones come.

        Args:
            flat: of ``flatten``.
            version: number of updates behind them.
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
    """Return the tensors of a state dict, in their order, as one new vector for each dtype."""
    by_dtype: dict[str, list[Tensor]] = {}
    for tensor in tensors.values():
        by_dtype.setdefault(str(tensor.dtype), []).append(tensor.detach().flatten().cpu())
    return {name: torch.cat(parts).numpy() for name, parts in by_dtype.items()}
