"""Sources of preference pairs: a store, or the current policy."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor

from tesserl_collectors.interfaces import GroupCollecting
from tesserl_environments import ActionMask
from tesserl_environments.masks import ACTION_MASK
from tesserl_preference_data import PreferencePairs, ScriptedTeacher, cut_segments, load_pairs, make_pairs
from tesserl_preference_data.make import MAX_ENUMERATED
from tesserl_storage.appending import whole_lines
from tesserl_storage.errors import StorageError
from tesserl_training.pair_batches import NewestPairs, Part, Shuffled

Change = Callable[[PreferencePairs], PreferencePairs]


class StoredPairs:
    """Pairs of a store, in two parts: to learn from, and to measure with.

    Args:
        path: of the store.
        prepare: keeps of the pairs what is learned from, and refuses what does not fit the task.
        holdout_fraction: share of the second part, in [0, 1).
        seed: decides which pairs these are, so that a continued run has the same.

    Raises:
        StoreError: the store cannot be read.
        ValueError: there are too few pairs.
    """

    def __init__(self, path: str | Path, prepare: Change, *, holdout_fraction: float, seed: int) -> None:
        self.path = Path(path)
        self.pairs = prepare(load_pairs(self.path))
        order = torch.randperm(len(self.pairs), generator=torch.Generator().manual_seed(seed))
        self.held_out_index, self.train_index = torch.split(order, _parts(len(self.pairs), holdout_fraction))
        if not len(self.train_index):
            raise ValueError(f"pairs.source.path: {path} has {len(self.pairs)} labelled pairs; label or make more")
        self.order = Shuffled(len(self.train_index))
        self.digest = store_digest(self.path)

    @property
    def held_out(self) -> PreferencePairs:
        """The pairs to measure with."""
        return self.pairs.select(self.held_out_index)

    def draw(self, number: int) -> Part:
        """Return the next pairs for learning; they are reshuffled after each pass."""
        return self.pairs, self.train_index[self.order.take(number)]

    def change(self, change: Change) -> None:
        """Replace the entries of the steps."""
        self.pairs = change(self.pairs)

    def steps(self, chunk: int = 1 << 16) -> Iterator[TensorDictBase]:
        """All steps, a chunk at a time."""
        for block in self.pairs.pool.blocks:
            yield from block.steps.split(chunk)

    def state_dict(self) -> dict[str, Any]:
        """Return the order and position of the pairs, and the identity of the store."""
        return {"order": self.order.state_dict(), "digest": self.digest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from ``state_dict``.

        Raises:
            StorageError: the store is another one.
        """
        if state["digest"] != self.digest:
            raise StorageError(
                f"{self.path}: these are not the pairs that the run began with, some were added or labelled since; "
                "put them back, or start a new run"
            )
        self.order.load_state_dict(state["order"])


def _parts(count: int, fraction: float) -> list[int]:
    held_out = round(fraction * count)
    return [held_out, count - held_out]


def store_digest(path: Path) -> str:
    """SHA-256 of a store's manifest, which holds the digests of its files, and of its labels."""
    manifest, labels = path / "manifest.json", path / "labels.jsonl"
    return hashlib.sha256(manifest.read_bytes() + whole_lines(labels)).hexdigest()


class FreshPairs:
    """Pairs of what the policy does now: the newest ones, and some that are kept for measuring alone.

    Args:
        collector: plays groups of trajectories.
        prepare: keeps of the pairs what is learned from.
        num_groups: starts of an iteration.
        same_start: compare trajectories of one start alone.
        segment_length: see ``cut_segments``.
        num_pairs: of an iteration; None: all that there are.
        discount: of one step in a score.
        min_margin: least difference of scores.
        ties: whether they are kept.
        teacher: who judges; None: the score.
        buffer_size: newest pairs that are learned from.
        holdout_fraction: share of the pairs that is not, in [0, 1).
        agreed: context in which pairs are made and held out; ranks draw the same in it.
    """

    def __init__(
        self,
        collector: GroupCollecting,
        prepare: Change,
        *,
        num_groups: int,
        same_start: bool = True,
        segment_length: int | tuple[int, int] | None = None,
        num_pairs: int | None = None,
        discount: float = 1.0,
        min_margin: float = 0.0,
        ties: Literal["drop", "keep"] = "drop",
        teacher: ScriptedTeacher | None = None,
        buffer_size: int = 256,
        holdout_fraction: float = 0.0,
        agreed: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.collector, self.prepare = collector, prepare
        self.num_groups, self.same_start, self.segment_length = num_groups, same_start, segment_length
        self.num_pairs, self.buffer_size = num_pairs, buffer_size
        self.judging: dict[str, Any] = {
            "discount": discount,
            "min_margin": min_margin,
            "ties": ties,
            "teacher": teacher,
        }
        self.holdout_fraction, self.agreed = holdout_fraction, agreed
        self.train = NewestPairs(buffer_size)
        self.held_out = NewestPairs(max(1, round(buffer_size * holdout_fraction / (1 - holdout_fraction))))

    def collect(self) -> tuple[list[TensorDictBase], PreferencePairs | None]:
        """Plays groups and makes pairs of them.

        Returns:
            The trajectories; and the pairs, prepared, or None where no trajectory was long enough for a segment.
        """
        trajectories, group = self.collector.collect(self.num_groups)
        with self.agreed():
            return trajectories, self._pairs(trajectories, group)

    def _pairs(self, trajectories: list[TensorDictBase], group: Tensor) -> PreferencePairs | None:
        """Make pairs of trajectories; None if none is long enough for a segment."""
        shortest = self.segment_length[0] if isinstance(self.segment_length, tuple) else self.segment_length or 1
        if max(map(len, trajectories)) < shortest:
            return None
        pool = cut_segments(
            trajectories,
            segment_length=self.segment_length,
            group=group.tolist() if self.same_start else None,
            observation_keys=self.collector.keys,
        )
        few = len(pool) * (len(pool) - 1) // 2 <= MAX_ENUMERATED
        wanted = None if few else self.num_pairs or self.buffer_size
        pairs = make_pairs(pool, num_pairs=wanted, allow_fewer=True, **self.judging)
        return self.prepare(pairs.select(slice(self.num_pairs)))

    def add(self, pairs: PreferencePairs) -> None:
        """Store pairs; hold some of them out for measuring."""
        with self.agreed():
            held_out = torch.rand(len(pairs)) < self.holdout_fraction
        self.held_out.add(pairs.select(held_out))
        self.train.add(pairs.select(~held_out))

    def state_dict(self) -> dict[str, Any]:
        """Return the pairs and the starts that have been used."""
        return {
            "collector": self.collector.state_dict(),
            "train": self.train.state_dict(),
            "held_out": self.held_out.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from ``state_dict``."""
        self.collector.load_state_dict(state["collector"])
        self.train.load_state_dict(state["train"])
        self.held_out.load_state_dict(state["held_out"])


def check_actions(steps: Iterable[TensorDictBase], mask: ActionMask | None, path: str | Path) -> None:
    """Refuse stored actions that their masks forbid: no policy has a probability of them.

    Args:
        steps: parts of what is stored, ``[S]`` each.
        mask: of the task; None if it has none.
        path: of the store.

    Raises:
        ValueError: an action is forbidden.
    """
    if mask is None:
        return
    for part in steps:
        permitted = mask.permits(part[ACTION_MASK].numpy(), part["action"].numpy())
        if not permitted.all():
            index = int(permitted.argmin())
            raise ValueError(
                f"{path}: expected actions that their action_mask allows, got {part['action'][index].tolist()}, which "
                "is forbidden; correct the masks, or leave such steps out"
            )


def check_entries(
    steps: TensorDictBase, keys: Sequence[str], shapes: Mapping[str, tuple[int, ...]], path: str | Path
) -> None:
    """Refuses what was stored of another task.

    Args:
        steps: as they are stored.
        keys: entries of the steps that are needed.
        shapes: of the observations.
        path: of the store.

    Raises:
        ValueError: an entry is missing or has another shape.
    """
    there = {str(key): tuple(entry.shape[1:]) for key, entry in steps.items()}
    missing = [key for key in keys if key not in there]
    if missing:
        raise ValueError(f"{path}: expected {', '.join(missing)} by the step, got {', '.join(there)}")
    for key, shape in shapes.items():
        if there[key] != tuple(shape):
            raise ValueError(
                f"{path}: expected {key} of the shape {tuple(shape)}, got {there[key]}; name a store of this task"
            )
