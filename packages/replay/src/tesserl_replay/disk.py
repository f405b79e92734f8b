"""Reserve disk space for memory-mapped files, so that a full disk raises an error instead of ending the process."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import IO, Any

import torch
from tensordict import TensorDictBase
from torchrl.data import LazyMemmapStorage

CHUNK = 64 * 2**20
"""Bytes reserved at a time."""


def reserve(file: IO[bytes], size: int, *, name: str | Path) -> None:
    """Reserve disk space for the first bytes of a file.

    Without a reservation, writing to a mapped page ends the process with SIGBUS if the disk is full.

    Args:
        file: open for writing.
        size: number of bytes from the start of the file; bytes that are reserved already cost nothing.
        name: name of the file, for the error.

    Raises:
        OSError: the disk is full.
    """
    if not hasattr(os, "posix_fallocate") or size < 1:  # macOS, Windows
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):  # the file system does not support it
            raise OSError(error.errno, error.strerror, str(name)) from error


class MemmapStorage(LazyMemmapStorage):
    """torchrl's storage in memory-mapped files, with disk space reserved before each write.

    Args:
        max_size: largest number of transitions.
        scratch_dir: directory for its files.
    """

    def __init__(self, max_size: int, *, scratch_dir: str | Path) -> None:
        super().__init__(max_size, scratch_dir=scratch_dir, existsok=True)
        self._num_reserved = 0
        self._num_needed = 0

    def set(self, cursor: Any, data: TensorDictBase, *, set_cursor: bool = True) -> None:
        """Write transitions.

        Args:
            cursor: position, or positions, as integers.
            data: one transition, or ``[n]``.
            set_cursor: as in torchrl.

        Raises:
            OSError: the disk is full.
        """
        self._num_needed = int(torch.as_tensor(cursor).max()) + 1
        if self.initialized:
            self._reserve()
        super().set(cursor, data, set_cursor=set_cursor)

    def _init(self, data: TensorDictBase) -> None:
        super()._init(data)
        self._reserve()

    def _reserve(self) -> None:
        """Reserve disk space for all positions up to the last one that will be written."""
        if self._num_needed <= self._num_reserved:
            return
        leaves = list(self._storage.values(include_nested=True, leaves_only=True))
        row_bytes = [leaf[0].numel() * leaf.element_size() for leaf in leaves]
        rows = max(CHUNK // max(sum(row_bytes), 1), 1)
        number = min(-(-self._num_needed // rows) * rows, self.max_size)
        for leaf, size in zip(leaves, row_bytes, strict=True):
            with Path(leaf.filename).open("rb+") as file:
                reserve(file, number * size, name=leaf.filename)
        self._num_reserved = number
