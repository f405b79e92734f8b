"""Convert batches and trajectories to named arrays, which workers send, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict, TensorDictBase
from torch import Tensor


def entries_of(batch: TensorDictBase) -> dict[str, Tensor]:
    """Return the entries of a batch ``[N, T]`` in the order of their memory, time first: ``[T, N, ...]``.

    Args:
        batch: the batch; parts of nested keys are joined by ``/``.
    """
    return {name: tensor.transpose(0, 1) for name, tensor in _leaves(batch).items()}


def batch_of(entries: Mapping[str, Tensor]) -> TensorDictBase:
    """Return the batch ``[N, T]`` that views entries ``[T, N, ...]``, with the memory layout of `Collector`."""
    batch = {tuple(key.split("/")): tensor.transpose(0, 1) for key, tensor in entries.items()}
    return TensorDict(batch, next(iter(batch.values())).shape[:2])


def tensor_of(array: NDArray[Any]) -> Tensor:
    """Return an array as a tensor; copy a read-only array, such as one in Ray's store."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def arrays_of(trajectories: Sequence[TensorDictBase], group: Tensor) -> dict[str, Any]:
    """Return trajectories ``[T_i]`` as arrays of all steps, with the length and the group of each trajectory."""
    steps = _leaves(TensorDict.cat(list(trajectories)))
    arrays = {f"steps/{name}": tensor.contiguous().numpy() for name, tensor in steps.items()}
    lengths = np.array([len(trajectory) for trajectory in trajectories])
    return {"lengths": lengths, "group": group.numpy(), **arrays}


def trajectories_of(arrays: Mapping[str, Any]) -> list[tuple[TensorDictBase, int]]:
    """Invert ``arrays_of``: return copies of the trajectories, and the group of each."""
    if not arrays:
        return []
    names = [name.removeprefix("steps/") for name in arrays if name.startswith("steps/")]
    entries = {tuple(name.split("/")): torch.from_numpy(arrays[f"steps/{name}"].copy()) for name in names}
    steps = TensorDict(entries, [int(arrays["lengths"].sum())])
    return list(zip(steps.split(arrays["lengths"].tolist()), arrays["group"].tolist(), strict=True))


def _leaves(batch: TensorDictBase) -> dict[str, Tensor]:
    leaves = batch.items(include_nested=True, leaves_only=True)
    return {"/".join(key) if isinstance(key, tuple) else key: tensor for key, tensor in leaves}
