"""Pairs of segments, one of which is better."""

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

    Segments are stored once, unpadded, however many pairs they are in; an index says which make a pair. A batch is
    gathered on demand: ``pairs[index]`` is a TensorDict ``[n]`` of ``chosen`` and ``rejected`` (padded ``[n, T]``, with
    the observations, ``action``, ``mask`` and what else is known by the step: ``reward``, ``value_target``,
    ``reference_log_prob``), ``label`` and ``margin``. Padding repeats a segment's last step.

    No step is copied by `select`, `split` and `concatenate`, nor when a store is loaded: steps stay in mapped files.

    Args:
        pool: the segments.
        chosen_segment: number of each pair's better segment, int64 ``[P]``.
        rejected_segment: of the other, int64 ``[P]``.
        label: probability that the chosen one is better, ``[P]``: 1, 0.5 for a tie, NaN for a pair that nobody has
            judged yet; None for 1.
        margin: by how much it is better, in units of the score, ``[P]``; None for unknown, NaN.
        source: who says so, such as ``"score"``, ``"teacher"`` or a person's name: one for all, or one for each pair.

    Raises:
        ValueError: a pair names a segment that there is not, or arguments differ in length.
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
        """Take pairs of padded segments as they are.

        Args:
            chosen: the better segments, ``[P, T]``.
            rejected: the others, ``[P, T]``, with the same keys; ``T`` may differ.
            label: see the class.
            margin: see the class.
            source: see the class.
            mask_key: name of the mask; absent where all steps are valid.

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
        """All chosen segments, padded, ``[P, T]``: a copy, to look at."""
        return self[:].get("chosen")

    @property
    def rejected(self) -> TensorDict:
        """All rejected segments, padded, ``[P, T]``: a copy, to look at."""
        return self[:].get("rejected")

    def __getitem__(self, index: int | slice | Tensor) -> TensorDict:
        return self.batch(torch.arange(len(self))[index].reshape(-1))

    def batch(self, index: Tensor, *, pad_to: int | None = None) -> TensorDict:
        """Gather pairs.

        Args:
            index: which ones, int64 ``[n]``.
            pad_to: length ``T``; None for that of the longest segment among them.

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
            batch_size: pairs of a batch, at least 1.
            shuffle: whether to go in a random order.
            generator: source of randomness; default: torch's global one.
            drop_last: whether to leave out a last batch that is not full.
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
        """Return some of the pairs, on the same segments.

        Args:
            index: which ones: a slice, int64 or bool.
        """
        return self._derive(**{name: getattr(self, name)[index] for name in _INDEXED})

    def split(
        self,
        held_out_fraction: float,
        *,
        by: Literal["pair", "segment"] = "pair",
        generator: torch.Generator | None = None,
    ) -> tuple[PreferencePairs, PreferencePairs]:
        """Hold pairs out.

        Args:
            held_out_fraction: of the pairs (or segments), in (0, 1).
            by: ``"pair"`` splits the pairs: a segment may be on both sides, in different pairs. ``"segment"`` splits
                the segments and leaves out the pairs between the two halves.
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
        """Return the pairs that somebody has judged."""
        return self.select(~self.label.isnan())

    def relabel(self, preferred: Tensor, *, source: str | Sequence[str]) -> PreferencePairs:
        """Return these pairs under other labels, on the same segments.

        Args:
            preferred: which segment of a pair is better, ``[P]``: 0 for the one called chosen so far, 1 for the other,
                0.5 for a tie, NaN for unknown.
            source: who says so: one for all, or one for each pair.

        Raises:
            ValueError: a label is none of these, or there are not as many as pairs.
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
        """Return these pairs with one more entry by the step, or another in its place.

        Args:
            key: its name.
            values: of the steps of each of the pool's blocks, ``[N, ...]``.
        """
        return self._derive(pool=self.pool.set(key, values))

    def to(self, device: torch.device | str) -> PreferencePairs:
        """Return these pairs on a device.

        Args:
            device: where to.
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
    """Return the names of the judges, and the number of each pair's."""
    if isinstance(source, str):
        return (source,), torch.zeros(num_pairs, dtype=torch.int16)
    if len(source) != num_pairs:
        raise ValueError(f"there must be one source for each of {num_pairs} pairs, got {len(source)}")
    code: dict[str, int] = {}
    codes = [code.setdefault(name, len(code)) for name in source]
    return tuple(code), torch.tensor(codes, dtype=torch.int16)
