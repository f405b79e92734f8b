"""Concatenate sets of pairs; their segments are joined to one pool, each block once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tesserl_preference_data.pairs import PreferencePairs
from tesserl_preference_data.pool import SegmentBlock, SegmentPool


def concatenate(parts: Sequence[PreferencePairs]) -> PreferencePairs:
    """Concatenate sets of pairs without copying steps; blocks that no pair uses are dropped.

    Args:
        parts: sets of pairs, at least one; their segments must have the same keys.

    Returns:
        All pairs.

    Raises:
        ValueError: ``parts`` is empty, or keys differ.
    """
    if not parts:
        raise ValueError("there must be pairs to concatenate, got none")
    blocks: dict[int, SegmentBlock] = {}
    for part in parts:
        used = part.pool.block_of(torch.cat([part.chosen_segment, part.rejected_segment]))
        blocks |= {id(part.pool.blocks[number]): part.pool.blocks[number] for number in set(used.tolist())}
    if not blocks:
        return parts[0]
    pool = SegmentPool(list(blocks.values()))
    first = dict(zip(blocks, pool.first.tolist(), strict=True))
    sides = []
    for name in ("chosen_segment", "rejected_segment"):
        numbers = []
        for part in parts:
            number = getattr(part, name)
            shift = torch.tensor([first.get(id(block), 0) for block in part.pool.blocks]) - part.pool.first
            numbers.append(number + shift[part.pool.block_of(number)])
        sides.append(torch.cat(numbers))
    return PreferencePairs(
        pool,
        *sides,
        label=torch.cat([part.label for part in parts]),
        margin=torch.cat([part.margin for part in parts]),
        source=[name for part in parts for name in part.source],
    )
