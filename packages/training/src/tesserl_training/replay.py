"""A torchrl replay buffer that can write its content to segments on disk and read it back."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import TensorDictReplayBuffer

from tesserl_collectors.transfers import Download, Uploads
from tesserl_replay import FrameStorage
from tesserl_storage.errors import StorageError
from tesserl_storage.fields import Fields
from tesserl_training.replay_segments import Segments


class PriorityError(ValueError):
    """A priority is not finite."""


class Replay:
    """A replay buffer of transitions, numbered in the order of arrival.

    On a GPU, the errors of a batch become priorities one update late, so that no update waits for the previous one:
    they affect sampling from the batch after next. Batches are copied through reused pinned memory.

    Args:
        buffer: torchrl buffer with a tensor, memmap or frame storage; its writer is not used.
        capacity: number of transitions that it can hold.
        segments: segments on disk for the content in checkpoints.
        prioritized: whether sampling depends on the errors, so that batches cannot be drawn in advance.
        test_fraction: share of held-out transitions, in [0, 1); above 0 the sampler must be a
            ``PrioritizedSampler``. A transition's number alone decides whether it is held out.
        device: device of the batches.
    """

    def __init__(
        self,
        buffer: TensorDictReplayBuffer,
        capacity: int,
        segments: Segments,
        *,
        prioritized: bool,
        test_fraction: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.buffer, self.capacity, self.prioritized = buffer, capacity, prioritized
        self.total = 0
        self._newest_to_learn = -1  # number of the newest transition that is not held out
        self._segments, self._device, self._test_fraction = segments, torch.device(device), test_fraction
        self._upload = Uploads(device)
        self._drawn: Tensor | None = None  # positions of the newest batch, on the CPU
        self._late: deque[tuple[Tensor, Download]] = deque()  # positions and errors whose priorities are not set yet

    def __len__(self) -> int:
        """Return the number of stored transitions."""
        return min(self.total, self.capacity)

    @property
    def can_draw(self) -> bool:
        """Return whether there is a transition that is not held out."""
        return self._newest_to_learn >= self.total - len(self)

    def extend(self, transitions: TensorDictBase) -> int:
        """Add transitions ``[M]``, overwriting the oldest if full; return how many of them are not held out."""
        numbers, number_to_learn = torch.arange(self.total, self.total + len(transitions)), len(transitions)
        self._note_newest(numbers)
        self.total += len(transitions)
        if len(transitions) > self.capacity:
            transitions = transitions[-self.capacity :]
        if len(transitions):
            positions = numbers[-len(transitions) :] % self.capacity
            self._forget_late(positions)
            transitions.auto_device_()  # without a known device, storing would wait for a GPU
            self.buffer.storage.set(positions, transitions)  # the same as the buffer's writer, at half its cost
            self.buffer.sampler.mark_update(positions)
            if self._test_fraction:
                held_out = self._held_out(numbers)
                self.buffer.sampler.exclude(positions[held_out[-len(transitions) :]])
                number_to_learn -= int(held_out.sum())
        return number_to_learn

    def _note_newest(self, numbers: Tensor) -> None:
        to_learn = numbers[~self._held_out(numbers)] if self._test_fraction else numbers
        if len(to_learn):
            self._newest_to_learn = int(to_learn[-1])

    def _held_out(self, numbers: Tensor) -> Tensor:
        """Return which transitions are held out: those whose hash (splitmix64) is below the fraction."""
        mixed = numbers.numpy().astype(np.uint64) + np.uint64(1)
        for shift, factor in ((0, 0x9E3779B97F4A7C15), (30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift)) if shift else mixed) * np.uint64(factor)
        uniform = (mixed ^ (mixed >> np.uint64(31))) / np.float64(2**64)
        return torch.from_numpy(uniform < self._test_fraction)

    def test_batch(self, batch_size: int, seed: int) -> TensorDictBase | None:
        """Draw held-out transitions without using any global generator.

        Args:
            batch_size: number of transitions.
            seed: seed of the draw.

        Returns:
            ``[batch_size]``; None if no transition is held out.
        """
        if not self._test_fraction:
            return None
        numbers = torch.arange(self.total - len(self), self.total)
        positions = numbers[self._held_out(numbers)] % self.capacity
        if not len(positions):
            return None
        drawn = torch.randint(len(positions), (batch_size,), generator=torch.Generator().manual_seed(seed))
        return self._moved(self.buffer.storage.get(positions[drawn]))

    def batches(self, number: int, batch_size: int) -> Iterator[TensorDictBase]:
        """Draw batches one after the other.

        Uniform batches are drawn together, because updates do not affect them and one call of the buffer costs as much
        as several small updates. Other batches are drawn one at a time.

        Args:
            number: number of batches.
            batch_size: transitions per batch.

        Raises:
            PriorityError: an error of an earlier batch is not finite.
        """
        if self.prioritized or self._test_fraction:
            for _ in range(number):
                self._apply_late(but=0 if self._device.type == "cpu" else 1)
                yield self._moved(self.buffer.sample(batch_size))
        elif number:
            yield from self._moved(self.buffer.sample(number * batch_size)).split(batch_size)

    def _moved(self, batch: TensorDictBase) -> TensorDictBase:
        if self._device.type == "cpu":
            return batch
        self._drawn = batch.get("index", None)
        return self._upload.batch(batch.exclude("index"))

    def update_priority(self, batch: TensorDictBase) -> None:
        """Set the priorities of the newest batch from its ``td_error``, on a GPU one update late.

        Raises:
            PriorityError: an error is not finite.
        """
        if not self.prioritized:
            return
        if self._device.type == "cpu":
            self._set_priorities(batch)
        elif self._drawn is not None:
            self._late.append((self._drawn, Download(batch["td_error"])))

    def _set_priorities(self, batch: TensorDictBase) -> None:
        try:
            self.buffer.update_tensordict_priority(batch)
        except ValueError as error:
            raise PriorityError(*error.args) from error

    def _apply_late(self, *, but: int) -> None:
        """Set the priorities of all waiting batches except the newest ``but``."""
        while len(self._late) > but:
            index, errors = self._late.popleft()
            self._set_priorities(TensorDict({"index": index, "td_error": errors.result()}, [len(index)]))

    def _forget_late(self, positions: Tensor) -> None:
        """Drop waiting errors of overwritten transitions."""
        for place, (index, errors) in enumerate(self._late):
            kept = ~torch.isin(index, positions)
            if not bool(kept.all()):
                self._late[place] = index[kept], Download(errors.result()[kept])

    def set_beta(self, beta: float) -> None:
        """Set the exponent of the importance weights of a prioritised sampler."""
        if self.prioritized:
            self.buffer.sampler.beta = beta

    def state_dict(self) -> dict[str, Any]:
        """Return counters and sampler state; ``write`` stores the transitions in segments."""
        late = [{"index": index, "td_error": errors.result()} for index, errors in self._late]
        return {
            "total": self.total,
            "sampler": self.buffer.sampler.state_dict(),
            **({"late": late} if late else {}),
        }

    def write(self) -> list[dict[str, Any]]:
        """Write the transitions that are not on disk yet; return the entries of all segments in use."""
        return self._segments.write(self._read, self.total - len(self), self.total)

    def _read(self, start: int, stop: int) -> dict[str, Tensor]:
        """Return the transitions' tensors by key; pixels as ``frames``, each stored once, and frame numbers."""
        positions, storage = torch.arange(start, stop) % self.capacity, self.buffer.storage
        frames = {}
        if isinstance(storage, FrameStorage):
            transitions, frames["frames"] = storage.get_compact(positions)
        else:
            transitions = storage.get(positions)
        leaves = transitions.items(include_nested=True, leaves_only=True)
        return {"/".join(key) if isinstance(key, tuple) else key: value for key, value in leaves} | frames

    def prune(self, checkpoints: Iterable[Path]) -> None:
        """Remove from disk the segments that none of these checkpoints needs."""
        self._segments.prune(checkpoints)

    def load(self, state: Mapping[str, Any], entries: list[Mapping[str, Any]]) -> None:
        """Fill an empty buffer with the transitions of segments, each at its old index.

        Raises:
            StorageError: a segment is missing or damaged.
        """
        fields = Fields(state, "replay")
        segments, self.total = self._segments.read(entries), fields.integer("total")
        oldest = self.total - len(self)
        self._note_newest(torch.arange(oldest, self.total))
        first, last = (entries[0]["start"], entries[-1]["stop"]) if entries else (0, 0)
        if not (first <= oldest and last == self.total):
            raise StorageError(f"replay: expected segments of {oldest} to {self.total}, got {first} to {last}")
        for start, stop, tensors in segments:
            frames = tensors.pop("frames", None)
            transitions = TensorDict({tuple(key.split("/")): value for key, value in tensors.items()}, [stop - start])
            first = max(start, oldest)
            positions, transitions = torch.arange(first, stop) % self.capacity, transitions[first - start :]
            if frames is None:
                self.buffer.storage.set(positions, transitions)
            else:
                self.buffer.storage.set_compact(positions, transitions, frames)
        self.buffer.sampler.load_state_dict(state["sampler"])
        self._late = deque(self._saved_late(each) for each in (fields.items("late") if "late" in state else []))

    def _saved_late(self, saved: Mapping[str, Any]) -> tuple[Tensor, Download]:
        fields = Fields(saved, "replay: late")
        errors = fields.tensor("td_error", (None,), torch.float32)
        index = fields.tensor("index", tuple(errors.shape), torch.int64)
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < self.capacity:
            raise StorageError(f"replay: late: expected positions below {self.capacity}, got {int(index.max())}")
        return index, Download(errors)
