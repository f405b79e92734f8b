"""Preference pairs: pairs of segments, one of which is better."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any, Literal

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from torch import Tensor

from tesserl_preference_data.pool import SegmentBlock, SegmentPool
from tesserl_preference_data.segments import read_segments

_INDEXED = ("chosen_segment", "rejected_segment", "label", "margin", "source_code")


class PreferencePairs:
    """Pairs of trajectory segments, one of which is better.

    Each segment is stored once, unpadded, and pairs refer to segments by their numbers. Batches are gathered on demand:
    ``pairs[index]`` is a TensorDict ``[n]`` with ``chosen``, ``rejected``, ``label`` and ``margin``. ``chosen`` and
    ``rejected`` are padded, ``[n, T]``, with the observations, ``action``, ``mask`` and any other entries of steps,
    such as ``reward``, ``value_target`` and ``reference_log_prob``. Padding repeats a segment's last step.

    `select`, `split` and `concatenate` do not copy steps. Loading a store does not copy them either: they stay in
    memory-mapped files.

    Args:
        pool: the segments.
        chosen_segment: number of each pair's better segment, int64 ``[P]``.
        rejected_segment: number of each pair's other segment, int64 ``[P]``.
        label: probability that the chosen segment is better, ``[P]``: 1, 0.5 for a tie, NaN for a pair without a
            judgement; None for 1.
        margin: difference of the scores, in units of the score, ``[P]``, NaN if unknown; None for all unknown.
        source: judge, such as ``"score"``, ``"teacher"`` or a person's name: one for all pairs, or one per pair.

    Raises:
        ValueError: a pair names a segment that does not exist, or arguments differ in length.
    """

    def __init__(
        self,
        pool: SegmentPool,
        chosen_segment: Tensor,
        rejected_segment: Tensor,
        *,
        label: Tensor | None = None,
        margin: Tensor | None = None,
        source: str | Sequence[str] = "score",
    ) -> None:
        num_pairs = len(chosen_segment)
        self.pool = pool
        self.chosen_segment, self.rejected_segment = chosen_segment, rejected_segment
        self.label = torch.ones(num_pairs) if label is None else label
        self.margin = torch.full((num_pairs,), torch.nan) if margin is None else margin
        self.sources, self.source_code = _encode(source, num_pairs)
        self._check()

    @classmethod
    def from_segments(
        cls,
        chosen: TensorDictBase,
        rejected: TensorDictBase,
        *,
        label: Tensor | None = None,
        margin: Tensor | None = None,
        source: str | Sequence[str] = "file",
        mask_key: NestedKey = "mask",
    ) -> PreferencePairs:
        """Make pairs from padded segments.

        Args:
            chosen: the better segments, ``[P, T]``.
            rejected: the others, ``[P, T]``, with the same keys; ``T`` may differ.
            label: see the class.
            margin: see the class.
            source: see the class.
            mask_key: key of the mask; it may be missing if all steps are valid.

        Returns:
            The pairs.

        Raises:
            ValueError: shapes differ, or a segment has no valid step.
        """
        steps, lengths = [], []
        for name, side in (("chosen", chosen), ("rejected", rejected)):
            mask = read_segments(side, mask_key, name).mask
            lengths.append(mask.sum(dim=1))
            if (lengths[-1] == 0).any():
                raise ValueError(
                    f"every segment must have a valid step, got none in {name} {int(lengths[-1].argmin())}"
                )
            steps.append(side.exclude(mask_key)[mask])
        if set(steps[0].keys(True, True)) != set(steps[1].keys(True, True)):
            raise ValueError(f"chosen and rejected must have the same keys, got {steps[0]} and {steps[1]}")
        length = torch.cat(lengths)
        block = SegmentBlock(torch.cat(steps), length.cumsum(0) - length, length, torch.full_like(length, -1))
        number = torch.arange(len(chosen))
        return cls(SegmentPool([block]), number, number + len(chosen), label=label, margin=margin, source=source)

    def __len__(self) -> int:
        return len(self.chosen_segment)

    @property
    def source(self) -> list[str]:
        """Return the judge of each pair."""
        return [self.sources[code] for code in self.source_code.tolist()]

    @property
    def chosen(self) -> TensorDict:
        """A copy of all chosen segments, padded, ``[P, T]``, for inspection."""
        return self[:].get("chosen")

    @property
    def rejected(self) -> TensorDict:
        """A copy of all rejected segments, padded, ``[P, T]``, for inspection."""
        return self[:].get("rejected")

    def __getitem__(self, index: int | slice | Tensor) -> TensorDict:
        return self.batch(torch.arange(len(self))[index].reshape(-1))

    def batch(self, index: Tensor, *, pad_to: int | None = None) -> TensorDict:
        """Gather pairs to a batch.

        Args:
            index: indices of the pairs, int64 ``[n]``.
            pad_to: length ``T``; None for the length of the longest segment in the batch.

        Returns:
            The batch, ``[n]``.

        Raises:
            ValueError: a segment is longer than ``pad_to``.
        """
        num_pairs = len(index)
        both = self.pool.gather(torch.cat([self.chosen_segment[index], self.rejected_segment[index]]), pad_to=pad_to)
        sides = {"chosen": both[:num_pairs], "rejected": both[num_pairs:]}
        return TensorDict({**sides, "label": self.label[index], "margin": self.margin[index]}, [num_pairs])

    def minibatches(
        self,
        batch_size: int,
        *,
        shuffle: bool = True,
        generator: torch.Generator | None = None,
        drop_last: bool = False,
        pad_to: int | None = None,
    ) -> Iterator[TensorDict]:
        """Iterate once over all pairs.

        Args:
            batch_size: number of pairs per batch, at least 1.
            shuffle: whether to go in a random order.
            generator: source of randomness; default: torch's global one.
            drop_last: whether to drop a last batch that is not full.
            pad_to: see `batch`; a fixed length keeps shapes fixed, for ``torch.compile``.

        Yields:
            Batches, ``[batch_size]``.

        Raises:
            ValueError: ``batch_size`` is below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        order = torch.randperm(len(self), generator=generator) if shuffle else torch.arange(len(self))
        for index in torch.split(order, batch_size):
            if len(index) == batch_size or not drop_last:
                yield self.batch(index, pad_to=pad_to)

    def select(self, index: slice | Tensor) -> PreferencePairs:
        """Return some of the pairs, which share the segments.

        Args:
            index: indices of the pairs: a slice, int64 or bool.
        """
        return self._derive(**{name: getattr(self, name)[index] for name in _INDEXED})

    def split(
        self,
        held_out_fraction: float,
        *,
        by: Literal["pair", "segment"] = "pair",
        generator: torch.Generator | None = None,
    ) -> tuple[PreferencePairs, PreferencePairs]:
        """Split into pairs for training and held-out pairs.

        Args:
            held_out_fraction: fraction of the pairs (or segments) to hold out, in (0, 1).
            by: ``"pair"`` splits the pairs; a segment may then be on both sides, in different pairs. ``"segment"``
                splits the segments and drops pairs with one segment on each side.
            generator: source of randomness; default: torch's global one.

        Returns:
            Pairs to train on and pairs held out.

        Raises:
            ValueError: an option is out of its range, or one side would be empty.
        """
        if not 0 < held_out_fraction < 1:
            raise ValueError(f"held_out_fraction must be in (0, 1), got {held_out_fraction}")
        if by not in ("pair", "segment"):
            raise ValueError(f"by must be pair or segment, got {by!r}")
        count = len(self) if by == "pair" else len(self.pool)
        is_out = torch.randperm(count, generator=generator) < round(held_out_fraction * count)
        if by == "pair":
            held_out, train = is_out, ~is_out
        else:
            chosen_out, rejected_out = is_out[self.chosen_segment], is_out[self.rejected_segment]
            held_out, train = chosen_out & rejected_out, ~(chosen_out | rejected_out)
        if not held_out.any() or not train.any():
            raise ValueError(
                f"there must be pairs on both sides, got {int(train.sum())} to train on and {int(held_out.sum())} held "
                f"out of {len(self)}; make more pairs, or split by pair"
            )
        return self.select(train), self.select(held_out)

    def labelled(self) -> PreferencePairs:
        """Return the pairs that have a label."""
        return self.select(~self.label.isnan())

    def relabel(self, preferred: Tensor, *, source: str | Sequence[str]) -> PreferencePairs:
        """Return these pairs with other labels and the same segments.

        Args:
            preferred: better segment of each pair, ``[P]``: 0 for the current chosen segment, 1 for the other, 0.5 for
                a tie, NaN for unknown.
            source: judge: one for all pairs, or one per pair.

        Raises:
            ValueError: a label is none of these, or the number of labels differs from the number of pairs.
        """
        known = preferred.isnan() | (preferred == 0) | (preferred == 0.5) | (preferred == 1)
        if preferred.shape != self.label.shape or not known.all():
            raise ValueError(f"preferred must be 0, 0.5, 1 or NaN for each of {len(self)} pairs, got {preferred}")
        swap = preferred == 1
        return PreferencePairs(
            self.pool,
            torch.where(swap, self.rejected_segment, self.chosen_segment),
            torch.where(swap, self.chosen_segment, self.rejected_segment),
            label=torch.where(swap, 1.0, 1 - preferred.to(self.label)),
            margin=torch.where(swap, -self.margin, self.margin),
            source=source,
        )

    def with_steps(self, key: NestedKey, values: Sequence[Tensor]) -> PreferencePairs:
        """Return these pairs with an entry of steps added or replaced.

        Args:
            key: key of the entry.
            values: values for the steps of each block of the pool, ``[N, ...]``.
        """
        return self._derive(pool=self.pool.set(key, values))

    def to(self, device: torch.device | str) -> PreferencePairs:
        """Return these pairs on a device.

        Args:
            device: destination.
        """
        return self._derive(pool=self.pool.to(device), **{name: getattr(self, name).to(device) for name in _INDEXED})

    def _derive(self, **changes: Any) -> PreferencePairs:
        other = copy(self)
        other.__dict__.update(changes)
        return other

    def _check(self) -> None:
        num_pairs, num_segments = len(self), len(self.pool)
        if not self.rejected_segment.shape == self.label.shape == self.margin.shape == (num_pairs,):
            shapes = [tuple(each.shape) for each in (self.rejected_segment, self.label, self.margin)]
            raise ValueError(
                f"rejected_segment, label and margin must have an entry for each of {num_pairs} pairs, got {shapes}"
            )
        for name in ("chosen_segment", "rejected_segment"):
            number = getattr(self, name)
            wrong = (number < 0) | (number >= num_segments)
            if wrong.any():
                pair = int(wrong.int().argmax())
                raise ValueError(f"{name} of pair {pair} must be in [0, {num_segments}), got {int(number[pair])}")


def _encode(source: str | Sequence[str], num_pairs: int) -> tuple[tuple[str, ...], Tensor]:
    """Return the names of the judges, and the index of each pair's judge."""
    if isinstance(source, str):
        return (source,), torch.zeros(num_pairs, dtype=torch.int16)
    if len(source) != num_pairs:
        raise ValueError(f"there must be one source for each of {num_pairs} pairs, got {len(source)}")
    code: dict[str, int] = {}
    codes = [code.setdefault(name, len(code)) for name in source]
    return tuple(code), torch.tensor(codes, dtype=torch.int16)
