"""Score segments, draw pairs and label them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from tensordict import NestedKey
from torch import Tensor

from tesserl_preference_data.pairs import PreferencePairs
from tesserl_preference_data.pool import SegmentPool
from tesserl_preference_data.teachers import ScriptedTeacher, TeacherLabels

MAX_ENUMERATED = 2_000_000
"""Largest number of pairs to enumerate; if there are more, pairs are drawn until there are enough."""


def make_pairs(
    pool: SegmentPool,
    *,
    num_pairs: int | None = None,
    discount: float = 1.0,
    min_margin: float = 0.0,
    ties: Literal["drop", "keep"] = "drop",
    teacher: ScriptedTeacher | None = None,
    labelled: bool = True,
    allow_fewer: bool = False,
    generator: torch.Generator | None = None,
) -> PreferencePairs:
    """Draw pairs of segments of the same group and label them by their scores or by a teacher.

    A segment's score is ``sum_t discount^t score_t`` over exactly its own steps. No pair is drawn twice, in either
    order.

    Args:
        pool: segments, as returned by `cut_segments`.
        num_pairs: number of pairs; None for all possible pairs.
        discount: weight of a step in a score relative to the step before, in [0, 1]; a teacher uses its own discount.
        min_margin: smallest difference of scores, in units of the score, at least 0.
        ties: whether to drop pairs of equal scores (for a teacher: equal sums), or to keep them with label 0.5.
        teacher: labels the pairs by the scores of their steps; None prefers the larger score.
        labelled: False leaves labelling to a person: labels are NaN, and the order in a pair is random.
        allow_fewer: whether to return fewer than ``num_pairs``, or none, if there are not enough.
        generator: source of randomness; default: torch's global one.

    Returns:
        The pairs, in random order, without those that a teacher skips.

    Raises:
        ValueError: an option is out of its range, or there are fewer than ``num_pairs`` pairs.
    """
    if min_margin < 0:
        raise ValueError(f"min_margin must be at least 0, got {min_margin}")
    if ties not in ("drop", "keep"):
        raise ValueError(f"ties must be drop or keep, got {ties!r}")
    score = segment_scores(pool, discount=discount)
    keep = ties == "keep"
    first, second = _draw(score, pool.group, num_pairs, min_margin, keep, allow_fewer, generator)
    margin = score[second] - score[first]
    source = "score"
    if not labelled:
        label, source = torch.full_like(margin, torch.nan), "nobody"
    elif teacher is None:
        label = torch.where(margin == 0, 0.5, (margin > 0).to(margin.dtype))
    else:
        judged = _ask(teacher, pool, first, second, generator)
        kept = judged.kept if keep else judged.kept & (judged.label != 0.5)
        first, second, margin, label = first[kept], second[kept], margin[kept], judged.label[kept]
        source = "teacher"
    return PreferencePairs(pool, first, second, margin=-margin.float()).relabel(label.float(), source=source)


def rank_pairs(
    pool: SegmentPool, rankings: Sequence[Sequence[int]], *, adjacent: bool = False, source: str = "file"
) -> PreferencePairs:
    """Make pairs from ranked lists of segments.

    Args:
        pool: the segments.
        rankings: lists of segment numbers, the best first.
        adjacent: whether to pair only neighbours in a list, instead of all segments.
        source: name of the judge.

    Returns:
        The pairs, in the order of the lists.

    Raises:
        ValueError: a list names a segment twice, or a segment that does not exist.
    """
    pairs: list[tuple[int, int]] = []
    for number, ranking in enumerate(rankings):
        if len(set(ranking)) < len(ranking):
            raise ValueError(f"ranking {number} must name a segment once, got {list(ranking)}")
        last = len(ranking)
        for place, better in enumerate(ranking):
            pairs += [(better, worse) for worse in ranking[place + 1 : place + 2 if adjacent else last]]
    index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    return PreferencePairs(pool, index[:, 0], index[:, 1], source=source)


def segment_scores(pool: SegmentPool, *, discount: float = 1.0) -> Tensor:
    """Return the scores of segments, ``sum_t discount^t score_t``.

    Args:
        pool: segments whose steps have a ``score`` or, without it, a ``reward``.
        discount: weight of a step relative to the step before, in [0, 1].

    Returns:
        Scores, float64 ``[S]``.

    Raises:
        ValueError: ``discount`` is out of its range, or a score is not finite.
    """
    if not 0 <= discount <= 1:
        raise ValueError(f"discount must be in [0, 1], got {discount}")
    parts = []
    for block in pool.blocks:
        segment, place, index = block.layout()
        values = block.steps.get(score_key(pool))[index].reshape(-1).double()
        weighted = values if discount == 1 else values * discount ** place.double()
        parts.append(weighted.new_zeros(len(block.length)).index_add_(0, segment, weighted))
    scores = torch.cat(parts)
    if not scores.isfinite().all():
        raise ValueError(f"scores must be finite, got {scores[~scores.isfinite()][0]} for a segment")
    return scores


def score_first_steps(pool: SegmentPool) -> SegmentPool:
    """Score each segment only by its first step.

    Use it if the score of a step includes everything after it, such as the return to go. The first step's score then
    covers the whole segment and the rest of its trajectory.

    Args:
        pool: segments with a score per step.

    Returns:
        The same segments, with a score of 0 for all other steps.
    """
    values = []
    for block in pool.blocks:
        score = block.steps.get(score_key(pool))
        first = torch.zeros_like(score)
        first[block.start] = score[block.start]
        values.append(first)
    return pool.set("score", values)


def largest_margin(score: Tensor, group: Tensor) -> float | None:
    """Return the largest difference between the scores of two segments of one group.

    Args:
        score: of the segments, ``[S]``.
        group: of the segments, ``[S]``; segments of different groups are not compared.

    Returns:
        At least 0; None if no group has two segments.
    """
    _, index, count = torch.unique(group, return_inverse=True, return_counts=True)
    if not len(count) or int(count.max()) < 2:
        return None
    empty = score.new_zeros(len(count))
    highest = empty.scatter_reduce(0, index, score, "amax", include_self=False)
    lowest = empty.scatter_reduce(0, index, score, "amin", include_self=False)
    return float((highest - lowest).max())


def score_key(pool: SegmentPool) -> NestedKey:
    """Return the key of the scores of steps: ``score`` if it exists, otherwise ``reward``."""
    for key in ("score", "reward"):
        if key in pool.keys:
            return key
    raise ValueError(f"segments must have a score or a reward by the step, got {pool.keys}")


def _ask(
    teacher: ScriptedTeacher, pool: SegmentPool, first: Tensor, second: Tensor, generator: torch.Generator | None
) -> TeacherLabels:
    """Return a teacher's labels of pairs, from the scores of their steps."""
    key = score_key(pool)
    rewards, masks = [], []
    for side in (first, second):
        batch = pool.gather(side, keys=[key])
        rewards.append(batch.get(key).reshape(batch.batch_size).double())
        masks.append(batch.get("mask"))
    return teacher.label(*rewards, *masks, generator=generator)


def _draw(
    score: Tensor,
    group: Tensor,
    num_pairs: int | None,
    min_margin: float,
    keep_ties: bool,
    allow_fewer: bool,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Return distinct pairs of segments of the same group; the order of the pairs and within each is random."""
    num_segments = len(score)
    if num_segments * (num_segments - 1) // 2 <= MAX_ENUMERATED:
        found = _admit(torch.triu_indices(num_segments, num_segments, 1), score, group, min_margin, keep_ties)
        found = found[:, torch.randperm(found.shape[1], generator=generator)]
    else:
        if num_pairs is None:
            raise ValueError(f"num_pairs must be said for {num_segments} segments: they make too many pairs")
        found = _draw_until_enough(score, group, num_pairs, min_margin, keep_ties, generator)
    if num_pairs is not None and found.shape[1] < num_pairs and not allow_fewer:
        num_groups = len(set(group.tolist()))
        within = f" in {num_groups} groups" if num_groups > 1 else ""
        remedy = "collect more, or lower the margin"
        if not keep_ties and largest_margin(score, group) == 0:
            remedy = "all of them tie; keep ties, or collect segments whose scores differ"
        raise ValueError(
            f"{num_pairs} pairs were asked for, {found.shape[1]} can be made of {num_segments} segments{within} with a "
            f"margin of {min_margin}; {remedy}"
        )
    found = found[:, :num_pairs]
    swap = torch.rand(found.shape[1], generator=generator) < 0.5
    return torch.where(swap, found[1], found[0]), torch.where(swap, found[0], found[1])


def _draw_until_enough(
    score: Tensor, group: Tensor, num_pairs: int, min_margin: float, keep_ties: bool, generator: torch.Generator | None
) -> Tensor:
    """Return drawn pairs ``[2, n]``, with ``n`` at least ``num_pairs`` unless ten rounds find fewer."""
    order = group.argsort(stable=True)
    _, count = torch.unique_consecutive(group[order], return_counts=True)
    group_of = torch.repeat_interleave(torch.arange(len(count)), count)  # group of each position in `order`
    begin, size = (count.cumsum(0) - count)[group_of], count[group_of]
    found = torch.empty(2, 0, dtype=torch.int64)
    for _ in range(10):
        place = torch.randint(len(score), (4 * num_pairs,), generator=generator)
        place = place[size[place] > 1]
        other = (torch.rand(len(place), generator=generator, dtype=torch.float64) * (size[place] - 1)).long()
        other = begin[place] + (place - begin[place] + 1 + other) % size[place]
        drawn = torch.stack([order[place], order[other]]).sort(dim=0).values
        found = torch.cat([found, _admit(drawn, score, group, min_margin, keep_ties)], dim=1)
        code, inverse = torch.unique(found[0] * len(score) + found[1], return_inverse=True)
        earliest = torch.full_like(code, found.shape[1]).scatter_reduce_(
            0, inverse, torch.arange(found.shape[1]), "amin"
        )
        found = found[:, earliest.sort().values]
        if found.shape[1] >= num_pairs:
            break
    return found


def _admit(pairs: Tensor, score: Tensor, group: Tensor, min_margin: float, keep_ties: bool) -> Tensor:
    """Return those of the pairs ``[2, n]`` that have the same group and a sufficient margin."""
    margin = (score[pairs[0]] - score[pairs[1]]).abs()
    enough = (margin >= min_margin) & (margin > 0) | ((margin == 0) if keep_ties else torch.zeros((), dtype=torch.bool))
    return pairs[:, enough & (group[pairs[0]] == group[pairs[1]])]
