"""A torchrl replay buffer whose content can be written to and read from segments on disk."""

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
    """A replay buffer of transitions, counted in the order in which they came.

    On a GPU the errors of a batch become priorities one update late, so that no update waits for the one before: the
    batch after next is the first that is drawn with them. Batches are copied through pinned memory that is used again.

    Args:
        buffer: torchrl buffer with a tensor, memmap or frame storage; its writer is not used.
        capacity: transitions it holds.
        segments: where a checkpoint keeps its content.
        prioritized: whether its sampler follows the errors, so that each batch must be drawn after the update before.
        test_fraction: share of the transitions that no batch holds, in [0, 1); above 0 the sampler must be a
            ``PrioritizedSampler``. Which ones depends on their number alone.
        device: where the batches go.
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
        self._newest_to_learn = -1  # number of the newest transition that batches may hold
        self._segments, self._device, self._test_fraction = segments, torch.device(device), test_fraction
        self._upload = Uploads(device)
        self._drawn: Tensor | None = None  # positions of the newest batch, which stay on the CPU
        self._late: deque[tuple[Tensor, Download]] = deque()  # positions, and errors that are not priorities yet

    def __len__(self) -> int:
        """Transitions it holds now."""
        return min(self.total, self.capacity)

    @property
    def can_draw(self) -> bool:
        """Return whether there is a transition that batches may hold."""
        return self._newest_to_learn >= self.total - len(self)

    def extend(self, transitions: TensorDictBase) -> int:
        """Add transitions ``[M]``, overwriting the oldest if full; return how many learning may sample."""
        numbers, number_to_learn = torch.arange(self.total, self.total + len(transitions)), len(transitions)
        self._note_newest(numbers)
        self.total += len(transitions)
        if len(transitions) > self.capacity:
            transitions = transitions[-self.capacity :]
        if len(transitions):
            positions = numbers[-len(transitions) :] % self.capacity
            self._forget_late(positions)
            transitions.auto_device_()  # storing entries of an unknown device waits for a GPU
            self.buffer.storage.set(positions, transitions)  # what the buffer's writer does, at half its cost
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
        """Return which transitions are held out of all batches: those whose hash (splitmix64) is below the fraction."""
        mixed = numbers.numpy().astype(np.uint64) + np.uint64(1)
        for shift, factor in ((0, 0x9E3779B97F4A7C15), (30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift)) if shift else mixed) * np.uint64(factor)
        uniform = (mixed ^ (mixed >> np.uint64(31))) / np.float64(2**64)
        return torch.from_numpy(uniform < self._test_fraction)

    def test_batch(self, batch_size: int, seed: int) -> TensorDictBase | None:
        """Draws transitions that are not learnt from, without touching any generator.

        Args:
            batch_size: transitions.
            seed: which ones.

        Returns:
            ``[batch_size]``; None where there are none.
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
        """Draws batches one after the other.

        Uniform batches are drawn in one go (what is drawn does not depend on the updates in between, and one call of
        the buffer costs as much as several small updates); others when they are asked for.

        Args:
            number: batches.
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
        """Hand the ``td_error`` of the newest batch to a prioritised sampler, on a GPU one update late.

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
        """Set the priorities of all batches whose errors have been asked for, but of the newest ones."""
        while len(self._late) > but:
            index, errors = self._late.popleft()
            self._set_priorities(TensorDict({"index": index, "td_error": errors.result()}, [len(index)]))

    def _forget_late(self, positions: Tensor) -> None:
        """Forget errors of transitions that are overwritten."""
        for place, (index, errors) in enumerate(self._late):
            kept = ~torch.isin(index, positions)
            if not bool(kept.all()):
                self._late[place] = index[kept], Download(errors.result()[kept])

    def set_beta(self, beta: float) -> None:
        """Set the exponent of the importance weights of a prioritised sampler."""
        if self.prioritized:
            self.buffer.sampler.beta = beta

    def state_dict(self) -> dict[str, Any]:
        """Counters and sampler; the transitions go to segments (``write``)."""
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
        """Tensors of the transitions by key; of pixels each frame once, as ``frames``, and its number for each use."""
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
        """Fill an empty buffer with the transitions of segments, each at its former index.

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
