"""Shared memory between processes, for the weights and the answers of workers.

The memory has no name in the file system, so that killed processes leave nothing behind.
"""

import ctypes
import mmap
import os
import pickle
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

MEMORY = Path("/dev/shm")  # noqa: S108 - files without a name
"""Directory of a memory file system."""

ALIGNMENT = 64


class SharedWeights:
    """The tensors of a state dict in memory that workers read; it holds one or two versions.

    A new version is written to memory that no worker reads. Processes get the memory when they start.

    Args:
        tensors: tensors with the names, shapes and dtypes of all later versions.
        context: context of `multiprocessing` that starts the processes.
        copies: number of versions: 1 if no worker has an open question when weights are published, otherwise 2.
    """

    def __init__(self, tensors: Mapping[str, Tensor], context: Any, copies: int = 1) -> None:
        self._entries: list[tuple[str, torch.Size, torch.dtype, int]] = []
        size = ALIGNMENT  # space for the version number
        for name, tensor in tensors.items():
            self._entries.append((name, tensor.shape, tensor.dtype, size))
            size += -(-tensor.numel() * tensor.element_size() // ALIGNMENT) * ALIGNMENT
        self._memories = [context.RawArray(ctypes.c_uint8, size) for _ in range(copies)]
        self._newest = 0  # index of the copy that was written last
        self._cached: dict[int, list[Tensor]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Omit the views, because every process makes its own."""
        return {**self.__dict__, "_cached": {}}

    def has_room(self, reading: Collection[int]) -> bool:
        """Return whether another version can be published while workers may still read older versions.

        Args:
            reading: versions of open questions.
        """
        return int(self._version(self._next)[0]) not in reading

    @property
    def _next(self) -> int:
        return (self._newest + 1) % len(self._memories)

    def publish(self, tensors: Mapping[str, Tensor], version: int) -> None:
        """Overwrite the oldest version by these tensors."""
        self._newest = self._next
        with torch.no_grad():
            for view, (name, *_) in zip(self._views(self._newest), self._entries, strict=True):
                view.copy_(tensors[name])
        self._version(self._newest)[0] = version

    def copied(self) -> dict[str, Tensor]:
        """Return a copy of the tensors published last."""
        return {name: view.clone() for view, (name, *_) in zip(self._views(self._newest), self._entries, strict=True)}

    def load(self, tensors: Mapping[str, Tensor], version: int) -> None:
        """Copy the weights into the tensors of a network.

        Args:
            tensors: state dict of the network, sharing its memory.
            version: expected version.

        Raises:
            RuntimeError: the memory has another version, or the network has other tensors.
        """
        versions = [int(self._version(index)[0]) for index in range(len(self._memories))]
        if version not in versions:
            raise RuntimeError(f"weights: expected version {version}, got {versions}")
        names = [name for name, *_ in self._entries]
        if list(tensors) != names:
            raise RuntimeError(f"weights: expected the tensors {names}, got {list(tensors)}")
        with torch.no_grad():
            for view, (name, *_) in zip(self._views(versions.index(version)), self._entries, strict=True):
                tensors[name].copy_(view)

    def _version(self, index: int) -> Tensor:
        return torch.frombuffer(self._memories[index], dtype=torch.int64, count=1)

    def _views(self, index: int) -> list[Tensor]:
        if index not in self._cached:
            self._cached[index] = [
                torch.frombuffer(self._memories[index], dtype=dtype, count=shape.numel(), offset=offset).reshape(shape)
                if shape.numel()
                else torch.empty(shape, dtype=dtype)
                for _, shape, dtype, offset in self._entries
            ]
        return self._cached[index]


class Outbox:
    """A worker's shared memory for its answer; it grows when needed."""

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None
        self._file: Any = None

    def put(self, content: Any) -> tuple[list[int], int | None]:
        """Overwrite the last answer; return the sizes of the parts, and the file descriptor if the memory is new."""
        buffers: list[pickle.PickleBuffer] = []
        head = pickle.dumps(content, protocol=5, buffer_callback=buffers.append)
        parts = [memoryview(head), *(buffer.raw() for buffer in buffers)]
        sizes = [len(part) for part in parts]
        new = self._memory is None or len(self._memory) < sum(map(_padded, sizes))
        if self._memory is None or new:
            self.close()
            self._memory, self._file = self._allocate(2 * sum(map(_padded, sizes)))
        for (start, stop), part in zip(_places(sizes), parts, strict=True):
            self._memory[start:stop] = part
        return sizes, self._file.fileno() if new else None

    def close(self) -> None:
        """Close the file; answers that were read stay valid."""
        if self._file is not None:
            self._file.close()

    def _allocate(self, size: int) -> tuple[mmap.mmap, Any]:
        has_room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > size
        file = tempfile.TemporaryFile(dir=MEMORY if has_room else None)  # noqa: SIM115 - it lives as long as the memory
        file.truncate(size)
        if hasattr(os, "posix_fallocate"):  # raises an error if memory is full, instead of a signal at the first access
            os.posix_fallocate(file.fileno(), 0, size)
        return mmap.mmap(file.fileno(), size), file


class Inbox:
    """The learner's view of a worker's memory, opened with the file descriptor that the worker sent."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, 0)

    def get(self, sizes: Sequence[int]) -> Any:
        """Return an answer; the worker's next answer overwrites its arrays."""
        whole = memoryview(self._memory)
        head, *buffers = (whole[start:stop] for start, stop in _places(sizes))
        return pickle.loads(head, buffers=buffers)  # noqa: S301 - a process of ours wrote it


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _places(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Return the aligned start and stop of each part."""
    starts = np.cumsum([0, *map(_padded, sizes)]).tolist()
    return [(start, start + size) for start, size in zip(starts, sizes, strict=False)]
