"""Store each distinct frame once."""

from __future__ import annotations

import tempfile
import weakref
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tesserl_replay.disk import CHUNK, reserve

Numbers = NDArray[np.int32]


class FramePool:
    """Numbered frames with reference counts; a frame is freed when no transition uses it.

    Args:
        shape: shape of a frame.
        block_size: number of frames for which memory is reserved at a time.
        scratch_dir: directory for a file that holds the frames; None keeps them in memory.
    """

    def __init__(self, shape: torch.Size, block_size: int, scratch_dir: str | Path | None) -> None:
        self.shape, self._block_size, self._scratch_dir = shape, block_size, scratch_dir
        size = shape.numel()
        self._word = next(
            word for word in (np.int64, np.int32, np.int16, np.uint8) if not size % np.dtype(word).itemsize
        )
        generator = np.random.default_rng(0)  # draws the weights of the hash; fixed, independent of the run's seed
        self._weights = generator.integers(-(2**63), 2**63, size // np.dtype(self._word).itemsize)
        self._blocks: list[Tensor] = []
        self._users = np.zeros(0, np.int32)  # per frame: number of uses by transitions
        self._hashes = np.zeros(0, np.int64)
        self._number_of: dict[int, int] = {}  # frame number by hash
        self._free: list[int] = []
        self._num_used = 0  # slots that have been written at least once
        self._spare: list[NDArray[np.uint8]] = []  # memory of freed batches, for reuse
        self._file: IO[bytes] | None = None  # file of the last block, with a scratch_dir
        self._num_reserved = 0  # slots with reserved disk space

    @property
    def num_stored(self) -> int:
        """Number of frames in use."""
        return self._num_used - len(self._free)

    def add(self, frames: Tensor) -> Numbers:
        """Store those of the frames ``[n, *shape]`` that are not stored yet; return the numbers of all, ``[n]``."""
        rows = frames.reshape(len(frames), self.shape.numel()).contiguous()
        size = 2048  # compare in chunks, because the comparison needs a copy
        parts = [self._add(rows[start : start + size]) for start in range(0, len(rows), size)]
        return np.concatenate([np.zeros(0, np.int32), *parts])

    def _add(self, rows: Tensor) -> Numbers:
        words = rows.numpy().view(self._word)
        hashes = words @ self._weights
        distinct, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        known = np.array([self._number_of.get(value, -1) for value in distinct.tolist()], np.int32)
        new = known < 0
        if new.any():
            known[new] = self._store(rows[torch.from_numpy(first[new])], distinct[new])
        numbers = known[inverse]
        differs = (self.gather(torch.from_numpy(numbers)).flatten(1).numpy().view(self._word) != words).any(-1)
        for i in np.flatnonzero(differs).tolist():  # a different frame with the same hash, which is rare
            number = self._number_of[int(hashes[i])]
            if not torch.equal(self.gather(torch.tensor([number])).flatten(1), rows[i : i + 1]):
                number = int(self._store(rows[i : i + 1], hashes[i : i + 1])[0])
            numbers[i] = number
        return numbers

    def _store(self, rows: Tensor, hashes: NDArray[np.int64]) -> Numbers:
        reused = self._free[len(self._free) - min(len(rows), len(self._free)) :]
        del self._free[len(self._free) - len(reused) :]
        fresh = range(self._num_used, self._num_used + len(rows) - len(reused))
        self._num_used += len(fresh)
        while self._num_used > len(self._users):
            self._grow()
        self._reserve()
        numbers = np.array([*reused, *fresh], np.int32)
        slots = torch.from_numpy(numbers)
        for block, where in self._by_block(slots):
            block[slots[where] % self._block_size] = rows[where]
        self._hashes[numbers] = hashes
        self._number_of.update(zip(hashes.tolist(), numbers.tolist(), strict=True))
        return numbers

    def _grow(self) -> None:
        shape = (self._block_size, self.shape.numel())
        if self._scratch_dir is None:
            self._blocks.append(torch.empty(shape, dtype=torch.uint8))
        else:
            self._reserve_block(self._block_size)  # reserve the rest of the previous block
            file = tempfile.TemporaryFile(dir=self._scratch_dir)  # noqa: SIM115 - open for as long as it grows
            weakref.finalize(self, file.close)
            array: Any = np.memmap(file, np.uint8, "w+", shape=shape)
            self._blocks.append(torch.from_numpy(array))
            self._file, self._num_reserved = file, len(self._users)
        self._users = np.concatenate([self._users, np.zeros(self._block_size, np.int32)])
        self._hashes = np.concatenate([self._hashes, np.zeros(self._block_size, np.int64)])

    def _reserve(self) -> None:
        """Reserve disk space for the frames to be written next, and for some more."""
        if self._file is None or self._num_used <= self._num_reserved:
            return
        ahead = max(CHUNK // max(self.shape.numel(), 1), 1)
        last = min(self._num_used + ahead, len(self._users))
        self._reserve_block(last - len(self._users) + self._block_size)
        self._num_reserved = last

    def _reserve_block(self, num_frames: int) -> None:
        """Reserve disk space for the first ``num_frames`` of the last block, if it is in a file."""
        if self._file is not None and self._scratch_dir is not None:
            reserve(self._file, num_frames * self.shape.numel(), name=self._scratch_dir)

    def retain(self, numbers: Numbers) -> None:
        """Increase the reference counts of frames."""
        np.add.at(self._users, numbers, 1)

    def release(self, numbers: Numbers) -> None:
        """Decrease the reference counts of frames, and free the frames that are no longer used."""
        np.subtract.at(self._users, numbers, 1)
        unused = np.unique(numbers[self._users[numbers] == 0]).tolist()
        for number, value in zip(unused, self._hashes[unused].tolist(), strict=True):
            if self._number_of.get(value) == number:
                del self._number_of[value]
        self._free += unused

    def gather(self, numbers: Tensor, pin_memory: bool = False) -> Tensor:
        """Return a copy of frames, ``[n, *shape]``."""
        out = self._empty(len(numbers), pin_memory)
        if len(self._blocks) == 1:
            torch.index_select(self._blocks[0], 0, numbers, out=out)
        else:
            for block, where in self._by_block(numbers):
                out[where] = block[numbers[where] % self._block_size]
        return out.view(-1, *self.shape)

    def _empty(self, num_frames: int, pin_memory: bool) -> Tensor:
        """Return memory for frames, ``[num_frames, size]``, that nothing else references.

        It reuses the memory of freed batches, because new pages from the system cost as much time as filling them.
        """
        size = num_frames * self.shape.numel()
        if pin_memory:  # torch itself reuses pinned memory
            return torch.empty((num_frames, self.shape.numel()), dtype=torch.uint8, pin_memory=True)
        fitting = [i for i, memory in enumerate(self._spare) if len(memory) == size]
        memory = self._spare.pop(fitting[-1]) if fitting else np.empty(size, np.uint8)
        held = memory[:]  # the tensor and its views keep this view alive; when it is freed, `memory` is given back
        weakref.finalize(held, self._give_back, memory).atexit = False
        return torch.from_numpy(held).view(num_frames, self.shape.numel())

    def _give_back(self, memory: NDArray[np.uint8]) -> None:
        self._spare = [*self._spare[-3:], memory]

    def _by_block(self, numbers: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return the blocks that contain these frames, each with the positions of its frames in ``numbers``."""
        of = numbers // self._block_size
        return [(block, (of == i).nonzero().squeeze(-1)) for i, block in enumerate(self._blocks)]
