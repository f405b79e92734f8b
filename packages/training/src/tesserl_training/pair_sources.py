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
    """Pairs of a store, split into training pairs and held-out pairs.

    Args:
        path: directory of the store.
        prepare: reduces the pairs to the entries for learning, and refuses pairs that do not fit the task.
        holdout_fraction: share of held-out pairs, in [0, 1).
        seed: seed of the split, so that a continued run has the same one.

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
        """Return the held-out pairs."""
        return self.pairs.select(self.held_out_index)

    def draw(self, number: int) -> Part:
        """Return the next pairs for learning; they are reshuffled after each pass."""
        return self.pairs, self.train_index[self.order.take(number)]

    def change(self, change: Change) -> None:
        """Apply a change to the entries of all pairs."""
        self.pairs = change(self.pairs)

    def steps(self, chunk: int = 1 << 16) -> Iterator[TensorDictBase]:
        """Yield all steps in chunks."""
        for block in self.pairs.pool.blocks:
            yield from block.steps.split(chunk)

    def state_dict(self) -> dict[str, Any]:
        """Return the order and position of the pairs, and the identity of the store."""
        return {"order": self.order.state_dict(), "digest": self.digest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``.

        Raises:
            StorageError: the state belongs to another store.
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
    """Return the SHA-256 of a store's manifest, which includes the digests of its files, and of its labels."""
    manifest, labels = path / "manifest.json", path / "labels.jsonl"
    return hashlib.sha256(manifest.read_bytes() + whole_lines(labels)).hexdigest()


class FreshPairs:
    """Pairs of the current policy's trajectories: the newest ones for training, and held-out ones.

    Args:
        collector: plays groups of trajectories.
        prepare: reduces the pairs to the entries for learning.
        num_groups: number of starts per iteration.
        same_start: only pair trajectories of the same start.
        segment_length: see ``cut_segments``.
        num_pairs: number of pairs per iteration; None: all possible pairs.
        discount: discount of one step in a score.
        min_margin: least difference of the scores of a pair.
        ties: whether to keep ties.
        teacher: scripted teacher that labels; None prefers the larger score.
        buffer_size: number of newest pairs to train on.
        holdout_fraction: share of held-out pairs, in [0, 1).
        agreed: context for making and splitting pairs, in which all ranks draw the same random numbers.
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
        """Play groups and make pairs of them.

        Returns:
            The trajectories, and the prepared pairs; None if no trajectory was long enough for a segment.
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
        """Store pairs; hold some of them out."""
        with self.agreed():
            held_out = torch.rand(len(pairs)) < self.holdout_fraction
        self.held_out.add(pairs.select(held_out))
        self.train.add(pairs.select(~held_out))

    def state_dict(self) -> dict[str, Any]:
        """Return the pairs and the used starts."""
        return {
            "collector": self.collector.state_dict(),
            "train": self.train.state_dict(),
            "held_out": self.held_out.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self.collector.load_state_dict(state["collector"])
        self.train.load_state_dict(state["train"])
        self.held_out.load_state_dict(state["held_out"])


def check_actions(steps: Iterable[TensorDictBase], mask: ActionMask | None, path: str | Path) -> None:
    """Refuse stored actions that their masks forbid: their probability is 0 under every policy.

    Args:
        steps: chunks of the stored steps, ``[S]`` each.
        mask: action mask of the task; None if it has none.
        path: path of the store, for the message.

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
    """Refuse stored steps of another task.

    Args:
        steps: stored steps.
        keys: required entries of the steps.
        shapes: shapes of the observations.
        path: path of the store, for the message.

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
