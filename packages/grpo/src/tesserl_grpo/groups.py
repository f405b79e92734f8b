"""Pad trajectories, check their starts, and score groups; no environment is needed.

A batch is a TensorDict whose entries start with ``[P, T]``: trajectories padded at the end, ``mask`` true on the steps
that were taken, ``group`` ``[P]`` equal for those that share a start. Its batch size is ``[P]`` (`pad_trajectories`),
or ``[P, T]`` (torchrl), with ``group`` on every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from torch import Tensor

from tesserl_grpo.advantages import (
    Scale,
    group_advantages,
    group_advantages_to_go,
    group_places,
)
from tesserl_grpo.metrics import group_metrics
from tesserl_grpo.options import check_choice
from tesserl_policy import get_entry, returns_to_go

Credit = Literal["trajectory", "to_go"]
ZeroVariance = Literal["keep", "drop", "resample"]
Truncation = Literal["keep", "mask", "bootstrap"]
CREDITS, ZERO_VARIANCES, TRUNCATIONS = get_args(Credit), get_args(ZeroVariance), get_args(Truncation)


class ScoredGroups(NamedTuple):
    """A batch with advantages."""

    batch: TensorDictBase  # with ``advantage`` [P, T, 1], and ``mask`` true on the steps that have a loss
    zero_variance_groups: Tensor  # ids of groups with equal returns, int64 [K]
    metrics: dict[str, float]


def pad_trajectories(
    trajectories: Sequence[TensorDictBase],
    group: Tensor | Sequence[int],
    *,
    keys: Sequence[NestedKey] | None = None,
) -> TensorDict:
    """Put trajectories of different lengths into one batch.

    Args:
        trajectories: ``P`` TensorDicts of batch size ``[T_i]``, at least one step each, with the same entries.
        group: group of each trajectory, ``P`` integers.
        keys: entries to keep; None keeps all.

    Returns:
        TensorDict of batch size ``[P]``: the entries ``[P, T, ...]`` with zeros after each trajectory's end, ``mask``
        ``[P, T]`` bool and ``group`` ``[P]`` int64.

    Raises:
        ValueError: there are no trajectories, one is empty, or ``group`` has another length.
    """
    lengths = [trajectory.shape[0] for trajectory in trajectories]
    if not lengths or min(lengths) == 0:
        raise ValueError(f"expected at least one trajectory and one step in each, got the lengths {lengths}")
    if len(group) != len(lengths):
        raise ValueError(f"group must say one number for each of {len(lengths)} trajectories, got {len(group)}")
    if keys is None:
        keys = list(trajectories[0].keys(include_nested=True, leaves_only=True))
    first = get_entry(trajectories[0], keys[0])
    longest, device = max(lengths), first.device
    mask = torch.arange(longest, device=device) < torch.tensor(lengths, device=device).unsqueeze(-1)
    places = mask.flatten().nonzero().squeeze(-1)
    batch = TensorDict({}, [len(lengths)], device=trajectories[0].device)
    for key in keys:  # two copies per key, for any number of trajectories
        steps = torch.cat([get_entry(trajectory, key) for trajectory in trajectories])
        padded = steps.new_zeros(mask.numel(), *steps.shape[1:]).index_copy_(0, places, steps)
        batch.set(key, padded.view(*mask.shape, *steps.shape[1:]))
    batch.set("mask", mask)
    batch.set("group", torch.as_tensor(group, dtype=torch.int64, device=device))
    return batch


def flatten_steps(
    batch: TensorDictBase, *, keys: Sequence[NestedKey] | None = None, mask: Tensor | None = None
) -> TensorDict:
    """Return the valid steps of a batch of trajectories, for minibatches without padding.

    Args:
        batch: trajectories with ``mask``.
        keys: entries to take; None takes all but ``mask``.
        mask: copy of the batch's mask on the CPU, bool ``[P, T]``; it avoids waiting for a GPU. None reads the mask of
            the batch.

    Returns:
        TensorDict of batch size ``[S]``, trajectory after trajectory. Entries of a whole trajectory are repeated on
        each of its steps.

    Raises:
        KeyError: a key is missing.
    """
    mask = read_mask(batch) if mask is None else mask
    steps = mask.flatten().nonzero().squeeze(-1)
    if batch.device is not None and steps.device != batch.device:
        steps = steps.pin_memory().to(batch.device, non_blocking=True)
    rows = steps // mask.shape[1]
    if keys is None:
        leaves = batch.keys(include_nested=True, leaves_only=True)
        keys = [key for key in leaves if key not in ("mask", ("collector", "mask"))]
    flat = TensorDict({}, [len(steps)], device=batch.device)
    for key in keys:
        entry = get_entry(batch, key)
        is_per_step = entry.shape[:2] == mask.shape
        flat.set(key, entry.flatten(0, 1).index_select(0, steps) if is_per_step else entry.index_select(0, rows))
    return flat


def check_shared_start(
    observation: Tensor, group: Tensor, *, name: str = "observation", tolerance: float = 0.0
) -> None:
    """Refuse groups whose trajectories did not start in the same state.

    Args:
        observation: first observation of each trajectory, ``[P, ...]``.
        group: group of each trajectory, ``[P]``.
        name: name of the observation, for the message.
        tolerance: largest accepted difference of two entries, in units of the observation.

    Raises:
        ValueError: two observations differ by more than ``tolerance``; the message names them and the difference.
    """
    row, column, _ = group_places(group)
    firsts = torch.zeros(int(row.max()) + 1, dtype=torch.int64, device=row.device)
    firsts[row[column == 0]] = (column == 0).nonzero().squeeze(-1)
    first = firsts[row]
    wide = observation.double() if observation.is_floating_point() else observation.to(torch.int64)
    distance = (wide - wide[first]).abs().flatten(1).amax(dim=-1)
    bad = (~(distance <= tolerance)).nonzero().squeeze(-1)  # also true for NaN
    if len(bad):
        index = int(bad[0])
        raise ValueError(
            f"trajectories of a group must share their first {name}: in group {int(group[index])} that of trajectory "
            f"{int(column[index])} (row {index}) is up to {float(distance[index]):.3g} away from that of trajectory 0 "
            f"(row {int(first[index])}), more than {tolerance:g}; reset every slot of a group with one seed, or "
            "restore one state"
        )


def bootstrap_cut(rewards: Tensor, mask: Tensor, cut: Tensor, next_value: Tensor, *, discount: float) -> Tensor:
    """Add the expected rest of the return to the last reward of cut trajectories: ``r_T + gamma V(s_T+1)``.

    Args:
        rewards: ``[P, T]``.
        mask: true on valid steps, ``[P, T]``.
        cut: true for trajectories that ended without termination, bool ``[P]``.
        next_value: expected return after the last step, in reward units, ``[P]``.
        discount: discount of one step, in [0, 1].

    Returns:
        Rewards, ``[P, T]``.
    """
    last = (mask.sum(dim=-1, keepdim=True) - 1).clamp(min=0)
    extra = torch.where(cut, discount * next_value, 0.0).to(rewards)
    return rewards.scatter_add(1, last, extra.unsqueeze(-1))


def score_groups(
    batch: TensorDictBase,
    *,
    credit: Credit = "trajectory",
    discount: float = 1.0,
    baseline: Any = None,
    scale: Scale = "none",
    zero_variance: ZeroVariance = "keep",
    truncation: Truncation = "keep",
    next_value: Tensor | None = None,
    observation: NestedKey = "observation",
    step_count: NestedKey | None = None,
) -> ScoredGroups:
    """Compute the advantage of every step over its group; the options leave out groups and steps.

    Args:
        batch: trajectories with ``mask``, ``group``, ``("next", "reward")`` and ``("next", "terminated")``; complete
            groups of one size. It is not changed.
        credit: ``"trajectory"``, one advantage from the return of the trajectory for all of its steps
            (`group_advantages`); or ``"to_go"``, one for each step from the return to go (`group_advantages_to_go`).
        discount: discount of one step, in [0, 1].
        baseline: a baseline of the function selected by ``credit``; None: ``"mean"`` or ``"alive"``.
        scale: see these two functions.
        zero_variance: treatment of a group with equal returns, whose advantages are all 0. ``"keep"``: it still counts
            in means over steps and in the entropy and KL terms. ``"drop"``: it is removed from the batch.
            ``"resample"``: it is removed, and the caller collects as many new groups (DAPO's dynamic sampling).
        truncation: treatment of a trajectory that does not end in termination. ``"keep"``: its return is used as it is.
            ``"mask"``: its steps are masked, and it counts in the baseline only (DAPO's overlong filtering).
            ``"bootstrap"``: ``next_value`` is added to its return.
        next_value: expected return after the last step, in reward units, ``[P]``; read for cut trajectories only.
        observation: entry for the baseline ``"linear"``. This baseline compares all states with each other, so no group
            has zero variance.
        step_count: entry ``[P, T, 1]`` with the steps of the episode before each step, for the baseline ``"linear"``;
            None: all trajectories begin at a reset.

    Returns:
        The batch with its advantages, the groups of zero variance, and metrics (see `group_metrics`; returns are those
        that the advantages use). The batch may be empty after ``"drop"``.

    Raises:
        KeyError: a key is missing.
        ValueError: the groups differ in size, an option is unknown, or ``next_value`` is missing.
    """
    check_choice("credit", credit, CREDITS)
    check_choice("zero_variance", zero_variance, ZERO_VARIANCES)
    check_choice("truncation", truncation, TRUNCATIONS)
    mask, group = read_mask(batch), _read_group(batch)
    rewards, cut = _read_rewards(batch, mask, truncation, next_value, discount=discount)
    row, column, table = _equal_groups(group)
    returns = returns_to_go(rewards, mask, discount=discount)[:, 0][table]  # [num_groups, G]
    if credit == "trajectory":
        per_trajectory = group_advantages(returns, scale=scale, baseline=baseline or "mean")[row, column]
        advantages = torch.where(mask, per_trajectory.unsqueeze(-1), 0.0)
    else:
        advantages = group_advantages_to_go(
            rewards,
            mask,
            group,
            discount=discount,
            baseline=baseline or "alive",
            scale=scale,
            observation=get_entry(batch, observation) if baseline == "linear" else None,
            step_count=None if step_count is None else _read_steps(batch, step_count, mask),
        )
    is_flat = (advantages == 0).all(dim=-1)[table].all(dim=-1)  # [num_groups]
    scored = batch.copy().set("advantage", advantages.unsqueeze(-1))
    scored.set("mask", mask & ~cut.unsqueeze(-1) if truncation == "mask" else mask)
    zero_variance_groups = group[table[:, 0]][is_flat]
    if zero_variance != "keep" and len(zero_variance_groups):
        scored = scored[~is_flat[row]]
    return ScoredGroups(scored, zero_variance_groups, group_metrics(returns, mask.sum(dim=-1), cut, is_flat))


def read_mask(batch: TensorDictBase) -> Tensor:
    """Return the mask of trajectories: ``mask``, or torchrl's ``("collector", "mask")``, bool ``[P, T]``."""
    mask = batch.get("mask", None)
    mask = batch.get(("collector", "mask"), None) if mask is None else mask
    mask = get_entry(batch, "mask") if mask is None else mask  # says what is missing
    return mask.reshape(mask.shape[:2]).bool()


def _read_steps(batch: TensorDictBase, key: NestedKey, mask: Tensor) -> Tensor:
    entry: Tensor = get_entry(batch, key)
    if entry.shape not in (mask.shape, (*mask.shape, 1)):
        raise ValueError(f"{key} must have the shape {(*mask.shape, 1)} of the mask, got {tuple(entry.shape)}")
    return entry.reshape(mask.shape)


def _read_rewards(
    batch: TensorDictBase, mask: Tensor, truncation: Truncation, next_value: Tensor | None, *, discount: float
) -> tuple[Tensor, Tensor]:
    """Return rewards ``[P, T]``, bootstrapped if the options say so, and which trajectories were cut, ``[P]``."""
    rewards = _read_steps(batch, ("next", "reward"), mask)
    terminated = _read_steps(batch, ("next", "terminated"), mask).bool()
    cut = ~(terminated & mask).any(dim=-1)
    if truncation != "bootstrap":
        return rewards, cut
    if next_value is None:
        raise ValueError("truncation bootstrap needs next_value, the return expected after the last step, got None")
    return bootstrap_cut(rewards, mask, cut, next_value, discount=discount), cut


def _read_group(batch: TensorDictBase) -> Tensor:
    """Return the group of each trajectory ``[P]``, also from a batch that has it on every step."""
    group: Tensor = get_entry(batch, "group")
    return group.reshape(group.shape[0], -1)[:, 0]


def _equal_groups(group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return row and column of each trajectory, ``[P]``, and the trajectory at each place, ``[num_groups, G]``."""
    row, column, member = group_places(group)
    if not member.all():
        sizes = member.sum(dim=-1)
        smallest = int(sizes.argmin())
        raise ValueError(
            f"groups must be of one size, got {int(sizes.min())} trajectories in group "
            f"{int(torch.unique(group)[smallest])} and {int(sizes.max())} in another; complete a group first"
        )
    table = torch.empty(member.shape, dtype=torch.int64, device=group.device)
    table[row, column] = torch.arange(len(group), device=group.device)
    return row, column, table
