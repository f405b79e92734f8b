"""Pairs of segments: the steps of each segment once, and which of two is better."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from torch import Tensor

from tesserl_preference_opt.steps import read_segments

EXTRA = "extra"
"""Entries below this key are kept with a segment and left out of batches: frames for a person to look at, and the like."""


@dataclass(frozen=True)
class SegmentBlock:
    """Segments whose steps lie one after another in the same tensors, in memory or in a mapped file."""

    steps: TensorDictBase  # [N]
    start: Tensor  # int64 [S], where in steps a segment begins
    length: Tensor  # int64 [S], at least 1
    group: Tensor  # int64 [S], equal for segments that may be compared


class PreferencePairs:
    """Pairs of trajectory segments, one of which is better.

    A segment's steps are stored once, unpadded, however many pairs it is in; an index says which segments make a pair. A
    batch is gathered on demand: ``pairs[index]`` is a TensorDict ``[n]`` of ``chosen`` and ``rejected`` (padded
    ``[n, T]``, with the observations, ``action``, ``mask`` and what else is known by the step: ``reward``,
    ``value_target``, ``reference_log_prob``), ``label`` and ``margin``. Padding repeats a segment's last step.

    Nothing is copied by `select`, `split` and `concatenate`, nor when a store is loaded (`load_pairs`): steps stay in
    mapped files.

    Args:
        blocks: the segments.
        chosen_segment: number of each pair's better segment, counted through all blocks, int64 ``[P]``.
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
        blocks: Sequence[SegmentBlock],
        chosen_segment: Tensor,
        rejected_segment: Tensor,
        *,
        label: Tensor | None = None,
        margin: Tensor | None = None,
        source: str | Sequence[str] = "score",
    ) -> None:
        num_pairs = len(chosen_segment)
        self.blocks = tuple(blocks)
        self.chosen_segment, self.rejected_segment = chosen_segment, rejected_segment
        self.label = torch.ones(num_pairs) if label is None else label
        self.margin = torch.full((num_pairs,), torch.nan) if margin is None else margin
        self.sources, self._source = _encode(source, num_pairs)
        self.lengths = torch.cat([block.length for block in self.blocks])
        self.group = torch.cat([block.group for block in self.blocks])
        counts = torch.tensor([len(block.length) for block in self.blocks])
        self._first_segment = (counts.cumsum(0) - counts).tolist()
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
        blocks = []
        for name, side in (("chosen", chosen), ("rejected", rejected)):
            segments = read_segments(side, mask_key, name)
            length = segments.mask.sum(dim=1)
            if (length == 0).any():
                raise ValueError(f"every segment must have a valid step, got none in {name} {int(length.argmin())}")
            steps = side.exclude(mask_key)[segments.mask]
            blocks.append(SegmentBlock(steps, length.cumsum(0) - length, length, torch.full_like(length, -1)))
        chosen_segment = torch.arange(len(chosen))
        rejected_segment = chosen_segment + len(chosen)
        return cls(blocks, chosen_segment, rejected_segment, label=label, margin=margin, source=source)

    def __len__(self) -> int:
        return len(self.chosen_segment)

    @property
    def num_segments(self) -> int:
        """Number of segments."""
        return len(self.lengths)

    @property
    def step_keys(self) -> list[NestedKey]:
        """What is known by the step."""
        return sorted(self.blocks[0].steps.keys(True, True), key=str)

    @property
    def source(self) -> list[str]:
        """Who judged each pair."""
        return [self.sources[code] for code in self._source.tolist()]

    @property
    def chosen(self) -> TensorDict:
        """All chosen segments, padded: a copy, to look at."""
        return self[:].get("chosen")

    @property
    def rejected(self) -> TensorDict:
        """All rejected segments, padded: a copy, to look at."""
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
        segment = torch.cat([self.chosen_segment[index], self.rejected_segment[index]])
        both = self._gather(segment, pad_to)
        num_pairs = len(index)
        source = {"chosen": both[:num_pairs], "rejected": both[num_pairs:]}
        return TensorDict({**source, "label": self.label[index], "margin": self.margin[index]}, [num_pairs])

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
        for index in order.split(batch_size):
            if len(index) == batch_size or not drop_last:
                yield self.batch(index, pad_to=pad_to)

    def select(self, index: slice | Tensor) -> PreferencePairs:
        """Return some of the pairs, on the same segments.

        Args:
            index: which ones: a slice, int64 or bool.
        """
        source = [self.sources[code] for code in self._source[index].tolist()]
        return PreferencePairs(
            self.blocks,
            self.chosen_segment[index],
            self.rejected_segment[index],
            label=self.label[index],
            margin=self.margin[index],
            source=source,
        )

    def split(
        self, held_out_fraction: float, *, by: Literal["pair", "segment"] = "pair", generator: torch.Generator | None = None
    ) -> tuple[PreferencePairs, PreferencePairs]:
        """Hold pairs out.

        Args:
            held_out_fraction: of the pairs (or segments), in (0, 1).
            by: ``"pair"`` splits the pairs: a segment may be on both sides, in different pairs. ``"segment"`` splits the
                segments and leaves out the pairs between the two halves.
            generator: source of randomness; default: torch's global one.

        Returns:
            Pairs to train on and pairs held out.

        Raises:
            ValueError: an option is out of its range, or one side would be empty.
        """
        if not 0 < held_out_fraction < 1 or by not in ("pair", "segment"):
            raise ValueError(f"held_out_fraction must be in (0, 1) and by pair or segment, got {held_out_fraction}, {by!r}")
        if by == "pair":
            order = torch.randperm(len(self), generator=generator)
            num_held_out = round(held_out_fraction * len(self))
            held_out = torch.zeros(len(self), dtype=torch.bool)
            held_out[order[:num_held_out]] = True
            train = ~held_out
        else:
            order = torch.randperm(self.num_segments, generator=generator)
            chosen_out, rejected_out = (
                order[each] < held_out_fraction * self.num_segments
                for each in (self.chosen_segment, self.rejected_segment)
            )
            held_out, train = chosen_out & rejected_out, ~chosen_out & ~rejected_out
        if not held_out.any() or not train.any():
            raise ValueError(
                f"there must be pairs on both sides, got {int(train.sum())} to train on and {int(held_out.sum())} held "
                f"out of {len(self)}; make more pairs, or split by pair"
            )
        return self.select(train), self.select(held_out)

    def labelled(self) -> PreferencePairs:
        """Return the pairs that somebody has judged."""
        return self.select(~self.label.isnan())

    def relabel(self, preferred: Tensor, *, source: str) -> PreferencePairs:
        """Return these pairs under other labels, on the same segments.

        Args:
            preferred: which segment of a pair is better, ``[P]``: 0 for the one called chosen so far, 1 for the other,
                0.5 for a tie, NaN for unknown.
            source: who says so.

        Raises:
            ValueError: a label is none of these, or there are not as many as pairs.
        """
        known = preferred.isnan() | (preferred == 0) | (preferred == 0.5) | (preferred == 1)
        if preferred.shape != self.label.shape or not known.all():
            raise ValueError(f"preferred must be 0, 0.5, 1 or NaN for each of {len(self)} pairs, got {preferred}")
        swap = preferred == 1
        return PreferencePairs(
            self.blocks,
            torch.where(swap, self.rejected_segment, self.chosen_segment),
            torch.where(swap, self.chosen_segment, self.rejected_segment),
            label=torch.where(swap, 1.0, 1 - preferred.to(self.label)),
            margin=torch.where(swap, -self.margin, self.margin),
            source=source,
        )

    def with_steps(self, key: NestedKey, values: Sequence[Tensor]) -> PreferencePairs:
        """Return these pairs with one more entry by the step (or another in its place).

        Args:
            key: its name.
            values: of each block's steps, ``[N, ...]``.

        Raises:
            ValueError: there are not as many as steps.
        """
        blocks = []
        for block, entry in zip(self.blocks, values, strict=True):
            if len(entry) != len(block.steps):
                raise ValueError(f"{key} must have {len(block.steps)} steps, got {len(entry)}")
            steps = block.steps.copy()
            blocks.append(replace(block, steps=steps.set(key, entry)))
        return PreferencePairs(
            blocks,
            self.chosen_segment,
            self.rejected_segment,
            label=self.label,
            margin=self.margin,
            source=self.source,
        )

    def segment(self, number: int) -> TensorDictBase:
        """Return the steps of one segment, ``[length]``, with all that is known of them: a view.

        Args:
            number: of the segment, such as ``chosen_segment[i]``.
        """
        block, local = self._locate(number)
        start = int(block.start[local])
        return block.steps[start : start + int(block.length[local])]
