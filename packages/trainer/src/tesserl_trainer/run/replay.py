"""A torchrl replay buffer whose content can be written to and read from segments on disk."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDictBase
from torchrl.data import TensorDictReplayBuffer

from tesserl_trainer.run.segments import Segments


class Replay:
    """A replay buffer of transitions, counted in the order in which they came.

    Args:
        buffer: torchrl buffer with a tensor or memmap storage; its writer is not used.
        capacity: transitions it holds.
        segments: where a checkpoint keeps its content.
        prioritized: whether its sampler has priorities, so that each batch must be drawn after the update before it.
        device: where the batches go.
    """

    def __init__(
        self,
        buffer: TensorDictReplayBuffer,
        capacity: int,
        segments: Segments,
        *,
        prioritized: bool,
        device: torch.device | str = "cpu",
    ) -> None:
        self.buffer, self.capacity, self.prioritized = buffer, capacity, prioritized
        self.total = 0
        self._segments, self._device = segments, torch.device(device)

    def __len__(self) -> int:
        """Transitions it holds now."""
        return min(self.total, self.capacity)

    def extend(self, transitions: TensorDictBase) -> None:
        """Adds transitions ``[M]``, overwriting the oldest where it is full."""
        self.total += len(transitions)
        if len(transitions) > self.capacity:
            transitions = transitions[-self.capacity :]
        if len(transitions):
            positions = torch.arange(self.total - len(transitions), self.total) % self.capacity
            self.buffer.storage.set(positions, transitions)  # what the buffer's writer does, at half its cost
            self.buffer.sampler.mark_update(positions)

    def batches(self, number: int, batch_size: int) -> Iterator[TensorDictBase]:
        """Draws batches one after the other.

        Uniform batches are drawn in one go (what is drawn does not depend on the updates in between, and one call of
        the buffer costs as much as several small updates); prioritised ones when they are asked for.

        Args:
            number: batches.
            batch_size: transitions per batch.
        """
        if self.prioritized:
            for _ in range(number):
                yield self._moved(self.buffer.sample(batch_size))
        elif number:
            yield from self._moved(self.buffer.sample(number * batch_size)).split(batch_size)

    def _moved(self, batch: TensorDictBase) -> TensorDictBase:
        return batch if self._device.type == "cpu" else batch.to(self._device, non_blocking=True)

    def update_priority(self, batch: TensorDictBase) -> None:
        """Hands the ``td_error`` of a batch to a prioritised sampler."""
        if self.prioritized:
            self.buffer.update_tensordict_priority(batch)

    def set_beta(self, beta: float) -> None:
        """Sets the exponent of the importance weights of a prioritised sampler."""
        if self.prioritized:
            self.buffer.sampler.beta = beta

    def state_dict(self) -> dict[str, Any]:
        """Counters and sampler; the transitions go to segments (``write``)."""
        return {"total": self.total, "sampler": self.buffer.sampler.state_dict()}

    def write(self) -> list[dict[str, Any]]:
        """Writes the transitions that are not on disk yet; returns the entries of all segments in use."""
        return self._segments.write(self._read, self.total - len(self), self.total)

    def _read(self, start: int, stop: int) -> TensorDictBase:
        positions = torch.arange(start, stop) % self.capacity
        return self.buffer.storage.get(positions)

    def prune(self, checkpoints: Iterable[Path]) -> None:
        """Removes from disk what none of these checkpoints needs."""
        self._segments.prune(checkpoints)

    def load(self, state: Mapping[str, Any], entries: list[Mapping[str, Any]]) -> None:
        """Fills an empty buffer with the transitions of segments, each at the place where it was.

        Raises:
            CheckpointError: a segment is missing or damaged.
        """
        segments = self._segments.read(entries)
        self.total = state["total"]
        oldest = self.total - len(self)
        for start, transitions in segments:
            kept = transitions[max(oldest - start, 0) :]
            first = max(start, oldest)
            positions = torch.arange(first, first + len(kept)) % self.capacity
            self.buffer.storage.set(positions, kept)
        self.buffer.sampler.load_state_dict(state["sampler"])
