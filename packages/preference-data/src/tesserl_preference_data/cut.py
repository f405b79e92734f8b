"""Cut trajectories into segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from torch import Tensor

from tesserl_preference_data.pool import EXTRA, SegmentBlock, SegmentPool
from tesserl_preference_data.segments import read_segments

OBSERVATION_KEYS = ("pixels", "observation")


def cut_segments(
    trajectories: Sequence[TensorDictBase] | TensorDictBase,
    *,
    segment_length: int | tuple[int, int] | None = None,
    score: Callable[[TensorDictBase], Tensor] | None = None,
    group: Sequence[int] | Literal["start"] | None = None,
    value_discount: float | None = None,
    observation_keys: Sequence[NestedKey] = (),
    extra_keys: Sequence[NestedKey] = (),
    generator: torch.Generator | None = None,
) -> SegmentPool:
    """Cut trajectories into segments that do not overlap.

    Args:
        trajectories: one episode each, ``[T]``, with observations and ``action`` at the root and ``("next", "reward")``
            ``[T, 1]``; or the result of torchrl's ``split_trajectories``, padded ``[n, T]`` with a mask.
        segment_length: number of steps per segment; a smallest and a largest length, between which each length is
            drawn; or None for whole trajectories. Remaining steps at the start and the end of a trajectory are dropped.
        score: maps a trajectory to scores of its steps, ``[T]`` or ``[T, 1]``, such as a shaped reward; None uses the
            reward.
        group: group of each trajectory, such as the number of its start or map; only segments of the same group make
            pairs. ``"start"`` groups trajectories with equal first observations. None allows pairs of any two segments.
        value_discount: store the discounted return to the end of the trajectory as ``value_target``, with this
            discount; a truncated trajectory counts no reward after its end. None stores none.
        observation_keys: keys that the policy reads; empty for those of ``pixels`` and ``observation`` that exist.
        extra_keys: further keys of steps to keep, under ``"extra"``; they are not in batches.
        generator: source of randomness for the positions and lengths of segments; None for torch's global generator.

    Returns:
        The segments, in the order of the trajectories.

    Raises:
        KeyError: a trajectory lacks a key.
        ValueError: an option is out of its range, or no trajectory is long enough.
    """
    shortest, longest = _length_range(segment_length)
    rows = _rows(trajectories)
    keys = list(observation_keys) or [key for key in OBSERVATION_KEYS if rows and rows[0].get(key, None) is not None]
    if not keys:
        raise ValueError(f"observation_keys must be said where there is none of {OBSERVATION_KEYS}")
    groups = _groups(rows, group, keys)
    kept, lengths, group_of = [], [], []
    for row, number in zip(rows, groups, strict=True):
        steps = _steps(row, keys, extra_keys, score, value_discount)
        begin, own = _cuts(len(row), shortest, longest, generator)
        if own:
            kept.append(steps[begin : begin + sum(own)])
            lengths += own
            group_of += [number] * len(own)
    if not kept:
        raise ValueError(f"trajectories must have at least {shortest} steps, got {sorted(map(len, rows))[-3:]} at most")
    length = torch.tensor(lengths)
    block = SegmentBlock(torch.cat(kept), length.cumsum(0) - length, length, torch.tensor(group_of))
    return SegmentPool([block])


def _length_range(segment_length: int | tuple[int, int] | None) -> tuple[int, int | None]:
    if segment_length is None:
        return 1, None
    shortest, longest = (segment_length,) * 2 if isinstance(segment_length, int) else segment_length
    if not 1 <= shortest <= longest:
        raise ValueError(f"segment_length must be at least 1, and the least at most the largest, got {segment_length}")
    return shortest, longest


def _rows(trajectories: Sequence[TensorDictBase] | TensorDictBase) -> list[TensorDictBase]:
    """Return trajectories one by one, ``[T]`` each."""
    if isinstance(trajectories, TensorDictBase):
        padded = read_segments(trajectories, "mask", "trajectories")
        return [row[mask] for row, mask in zip(padded.steps, padded.mask, strict=True)]
    for row in trajectories:
        if len(row.batch_size) != 1 or not len(row):
            raise ValueError(f"a trajectory must have the batch shape [T], T at least 1, got {tuple(row.batch_size)}")
    return list(trajectories)


def _entry(row: TensorDictBase, key: NestedKey) -> Tensor:
    entry = row.get(key, None)
    if entry is None:
        raise KeyError(f"expected the key {key!r}, the trajectory has {sorted(map(str, row.keys()))}")
    return entry


def _groups(rows: Sequence[TensorDictBase], group: Sequence[int] | str | None, keys: Sequence[NestedKey]) -> list[int]:
    if group is None:
        return [-1] * len(rows)
    if isinstance(group, str):
        if group != "start":
            raise ValueError(f'group must be a number for each trajectory, "start" or None, got {group!r}')
        starts: dict[bytes, int] = {}
        firsts = [b"".join(_entry(row, key)[0].contiguous().cpu().numpy().tobytes() for key in keys) for row in rows]
        return [starts.setdefault(first, len(starts)) for first in firsts]
    if len(group) != len(rows):
        raise ValueError(f"group must have a number for each of {len(rows)} trajectories, got {len(group)}")
    return [int(number) for number in group]


def _steps(
    row: TensorDictBase,
    keys: Sequence[NestedKey],
    extra_keys: Sequence[NestedKey],
    score: Callable[[TensorDictBase], Tensor] | None,
    value_discount: float | None,
) -> TensorDict:
    """Return the entries of a trajectory to keep, ``[T]``."""
    reward = _entry(row, ("next", "reward")).reshape(-1, 1)
    entries = {key: _entry(row, key) for key in [*keys, "action"]}
    entries["reward"] = reward
    if score is not None:
        entries["score"] = score(row).detach().reshape(len(row), 1)
    if value_discount is not None:
        entries["value_target"] = _returns_to_go(reward, value_discount)
    for key in extra_keys:
        extra: NestedKey = (EXTRA, key) if isinstance(key, str) else (EXTRA, *key)
        entries[extra] = _entry(row, key)
    return TensorDict(entries, [len(row)])


def _returns_to_go(reward: Tensor, discount: float) -> Tensor:
    """Return ``sum_k discount^k r_t+k``, ``[T, 1]``."""
    if not 0 <= discount <= 1:
        raise ValueError(f"value_discount must be in [0, 1], got {discount}")
    total, returns = 0.0, []
    for each in reversed(reward.flatten().tolist()):
        total = each + discount * total
        returns.append(total)
    return torch.tensor(returns[::-1], dtype=reward.dtype, device=reward.device).unsqueeze(-1)


def _cuts(
    num_steps: int, shortest: int, longest: int | None, generator: torch.Generator | None
) -> tuple[int, list[int]]:
    """Return the start of the first segment and the lengths of all segments that fit."""
    if longest is None:
        return 0, [num_steps]
    lengths: list[int] = []
    while True:
        length = int(torch.randint(shortest, longest + 1, (), generator=generator)) if longest > shortest else longest
        if sum(lengths) + length > num_steps:
            break
        lengths.append(length)
    left = num_steps - sum(lengths)
    return int(torch.randint(left + 1, (), generator=generator)), lengths
