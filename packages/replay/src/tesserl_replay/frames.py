"""A replay storage of pixels that stores every frame once.

Consecutive stacks of an environment share all frames but one, and the next observation of a step is the observation of
the following step. So a transition with two stacks of four frames adds only one new frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import LazyTensorStorage

from tesserl_replay.frame_pool import FramePool


class FrameStorage(LazyTensorStorage):
    """A storage for torchrl's replay buffers that stores each frame of frame stacks once.

    Writing splits stacks into frames and stores only frames that are new. Reading assembles the stacks again, bit for
    bit as they were written. This assumes nothing about environments, episodes, the order of transitions or the way in
    which a wrapper stacks frames. Without shared frames it needs as much memory as an ordinary storage. A frame is kept
    as long as a stored transition uses it.

    All other entries are kept in memory as in a ``LazyTensorStorage``. Memory is reserved for ``1.25 * max_size``
    frames, as in Beyond The Rainbow (Clark et al. 2024, arXiv:2411.03820), and extended if this is not enough. The
    operating system provides reserved memory only when it is written.

    Args:
        max_size: largest number of transitions, at least 1.
        num_frames: frames per stack, at least 1. They are stacked along the first axis of an image ``[C, H, W]``, so a
            frame is ``[C / num_frames, H, W]``.
        keys: keys of the stacks, all uint8 and of the same shape.
        scratch_dir: directory for a file that holds the frames and is removed with the storage; None keeps them in
            memory.
        pin_memory: whether to return stacks in pinned memory, for asynchronous copies to a GPU.

    Raises:
        ValueError: a number is below 1, or there are no keys.
    """

    def __init__(
        self,
        max_size: int,
        *,
        num_frames: int,
        keys: Sequence[NestedKey] = ("pixels", ("next", "pixels")),
        scratch_dir: str | Path | None = None,
        pin_memory: bool = False,
    ) -> None:
        for name, value in (("max_size", max_size), ("num_frames", num_frames), ("number of keys", len(keys))):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        super().__init__(max_size)
        self._num_frames, self._keys, self._pin_memory = num_frames, list(keys), pin_memory
        self._scratch_dir = scratch_dir
        self._pool: FramePool | None = None
        # numbers of the frames in the stacks of each transition; -1 for positions that are not written
        self._numbers = torch.full((max_size, len(keys), num_frames), -1, dtype=torch.int32)

    @property
    def num_stored(self) -> int:
        """Number of distinct frames that are stored."""
        return 0 if self._pool is None else self._pool.num_stored

    def set(self, cursor: Any, data: TensorDictBase, *, set_cursor: bool = True) -> None:
        """Write transitions, overwriting those at the same positions.

        Args:
            cursor: position, or positions (tensor, sequence, range or slice); the last of equal positions wins.
            data: one transition, or ``[n]``.
            set_cursor: as in torchrl.

        Raises:
            ValueError: a stack is not uint8, has another shape than before, or its channels are not a multiple of
                ``num_frames``.
        """
        positions, data = self._several(cursor, data)
        stacks = [self._frames_of(data.get(key).cpu(), key) for key in self._keys]
        if self._pool is None:
            self._pool = FramePool(stacks[0].shape[2:], self._block_size, self._scratch_dir)
        numbers = np.stack([self._pool.add(stack.flatten(0, 1)) for stack in stacks])
        numbers = numbers.reshape(len(stacks), len(positions), self._num_frames)
        self._put(positions, torch.from_numpy(numbers).transpose(0, 1))
        super().set(positions, data.exclude(*self._keys), set_cursor=set_cursor)

    def get(self, index: Any) -> TensorDictBase:
        """Read transitions.

        Args:
            index: position, or positions.

        Returns:
            One transition, or ``[n]``; the stacks are copies.

        Raises:
            IndexError: a position has not been written.
        """
        numbers = self._written(index)
        single = numbers.dim() == 2
        numbers = numbers.unsqueeze(0) if single else numbers
        data: TensorDictBase = super().get(index)
        # allocate the largest block last, so that it is freed first
        frames = self._existing_pool().gather(numbers.transpose(0, 1).flatten(), self._pin_memory)
        channels, *size = frames.shape[1:]
        stacks = frames.view(len(self._keys), len(numbers), self._num_frames * channels, *size)
        for key, stack in zip(self._keys, stacks, strict=True):
            data.set(key, stack[0] if single else stack)
        return data

    def get_compact(self, index: Tensor) -> tuple[TensorDictBase, Tensor]:
        """Read transitions in compact form, without assembling their stacks, to save them.

        Args:
            index: positions, int64 ``[n]``.

        Returns:
            Transitions ``[n]`` with frame numbers, int32 ``[n, num_frames]``, in place of each stack; and the distinct
            frames, ``[U, C, H, W]``, in the order of their first use.
        """
        numbers = self._written(index)
        frames, first, inverse = np.unique(numbers.numpy(), return_index=True, return_inverse=True)
        order = np.argsort(first)  # independent of the slots that store the frames
        rank = np.empty(len(order), np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        data: TensorDictBase = super().get(index)
        compact = torch.from_numpy(rank[inverse].reshape(numbers.shape))
        for i, key in enumerate(self._keys):
            data.set(key, compact[:, i].clone())
        return data, self._existing_pool().gather(torch.from_numpy(frames[order]), pin_memory=False)

    def set_compact(self, index: Tensor, data: TensorDictBase, frames: Tensor) -> None:
        """Write the result of ``get_compact``.

        Args:
            index: positions, all different, int64 ``[n]``.
            data: transitions ``[n]``.
            frames: frames that the transitions refer to, ``[U, C, H, W]``; unused ones are skipped.
        """
        numbers = torch.stack([data.get(key) for key in self._keys], dim=1)
        used, inverse = torch.unique(numbers, return_inverse=True)
        if self._pool is None:
            self._pool = FramePool(frames.shape[1:], self._block_size, self._scratch_dir)
        stored = torch.from_numpy(self._pool.add(frames if len(used) == len(frames) else frames[used.long()]))
        self._put(index, stored[inverse])
        super().set(index, data.exclude(*self._keys))

    def state_dict(self) -> dict[str, Any]:
        """Return ``LazyTensorStorage``'s state, ``frames`` ``[U, C, H, W]`` and the transitions' frame numbers."""
        if self._pool is None:
            return {**super().state_dict(), "frames": None, "numbers": None}
        used, numbers = torch.unique(self._numbers, return_inverse=True)
        missing = int((used < 0).any())  # -1 sorts first
        frames = self._pool.gather(used[missing:], pin_memory=False)
        return {**super().state_dict(), "frames": frames, "numbers": (numbers - missing).int()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load the result of ``state_dict``."""
        super().load_state_dict(state_dict)
        frames, numbers = state_dict["frames"], state_dict["numbers"]
        self._forget()
        if frames is None:
            return
        self._pool = FramePool(frames.shape[1:], self._block_size, self._scratch_dir)
        stored = torch.from_numpy(self._pool.add(frames))
        positions = (numbers[:, 0, 0] >= 0).nonzero().squeeze(-1)
        self._put(positions, stored[numbers[positions].long()])

    def dumps(self, path: str | Path) -> None:
        """Write the storage to a directory, as memory-mapped tensors."""
        super().dumps(path)
        state = self.state_dict()
        TensorDict({name: state[name] for name in ("frames", "numbers")}).memmap(Path(path) / "frames")

    def loads(self, path: str | Path) -> None:
        """Load the files that ``dumps`` wrote."""
        super().loads(path)
        saved = TensorDict.load_memmap(Path(path) / "frames")
        self.load_state_dict({**super().state_dict(), "frames": saved["frames"], "numbers": saved["numbers"]})

    @property
    def _block_size(self) -> int:
        return self.max_size + self.max_size // 4 + 1

    def _empty(self) -> None:
        super()._empty()
        self._forget()

    def _forget(self) -> None:
        self._pool = None
        self._numbers.fill_(-1)

    def _existing_pool(self) -> FramePool:
        if self._pool is None:
            raise IndexError("cannot read from an empty storage; extend the buffer first")
        return self._pool

    def _several(self, cursor: Any, data: TensorDictBase) -> tuple[Tensor, TensorDictBase]:
        """Return distinct positions ``[n]`` and their transitions ``[n]``."""
        if isinstance(cursor, slice):
            cursor = range(*cursor.indices(self.max_size))
        positions = torch.as_tensor(cursor)
        if positions.dim() == 0:
            positions, data = positions.unsqueeze(0), data.unsqueeze(0)
        last = np.unique(positions.flip(0).numpy(), return_index=True)[1]
        if len(last) < len(positions):
            kept = torch.from_numpy(len(positions) - 1 - last)
            positions, data = positions[kept], data[kept]
        return positions, data

    def _frames_of(self, stack: Tensor, key: NestedKey) -> Tensor:
        """Reshape ``[n, C, H, W]`` to ``[n, num_frames, C / num_frames, H, W]``."""
        if stack.dtype != torch.uint8 or stack.dim() != 4 or stack.shape[1] % self._num_frames:
            raise ValueError(
                f"{key}: expected images [n, C, H, W] of uint8 with a multiple of {self._num_frames} (num_frames) "
                f"channels, got {tuple(stack.shape)} of {stack.dtype}; keep other images in a LazyTensorStorage"
            )
        channels, *size = stack.shape[1:]
        frames = stack.reshape(len(stack), self._num_frames, channels // self._num_frames, *size)
        if self._pool is not None and frames.shape[2:] != self._pool.shape:
            raise ValueError(
                f"{key}: expected frames {tuple(self._pool.shape)} as before, got {tuple(frames.shape[2:])}"
            )
        return frames

    def _put(self, positions: Tensor, numbers: Tensor) -> None:
        """Set the frame numbers ``[n, keys, num_frames]`` of transitions ``[n]``."""
        pool, old = self._existing_pool(), self._numbers[positions].flatten()
        pool.retain(numbers.flatten().numpy())
        pool.release(old[old >= 0].numpy())
        self._numbers[positions] = numbers

    def _written(self, index: Any) -> Tensor:
        self._existing_pool()
        numbers = self._numbers[: len(self)][index]
        if (numbers < 0).any():
            raise IndexError("nothing has been written at some of the positions that are read")
        return numbers
