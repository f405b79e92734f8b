"""Advantages from the other trajectories of a group: tensors in, tensors out.

Shapes: ``num_groups`` groups of ``G`` trajectories that share a start; or ``P`` trajectories of at most ``T`` steps
with the ``group`` of each, in any order and of any size. ``mask`` is true on the steps that were taken. Rewards,
returns and advantages at scale ``"none"`` are in reward units.

Sources: GRPO, Shao et al. 2024 (DeepSeekMath, arXiv:2402.03300); leave-one-out, Ahmadian et al. 2024 (RLOO,
arXiv:2402.14740); no division, Liu et al. 2025 (Dr. GRPO, arXiv:2503.20783); one deviation for the batch, Hu et al.
2025 (REINFORCE++, arXiv:2501.03262); a linear baseline, Duan et al. 2016 (arXiv:1604.06778).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from tesserl_grpo.options import check_choice
from tesserl_policy import returns_to_go

Scale = Literal["none", "group", "batch"]
Baseline = Literal["mean", "leave_one_out"]
ToGoBaseline = Literal["alive", "zero_padded", "leave_one_out", "linear"]
SCALES, BASELINES, TO_GO_BASELINES = get_args(Scale), get_args(Baseline), get_args(ToGoBaseline)
EPS = 1e-4  # TRL's
RIDGE = 1e-5  # weight of the penalty of the linear baseline, relative to the number of steps


def group_advantages(
    returns: Tensor, *, scale: Scale = "none", baseline: Baseline = "mean", ddof: int = 1, eps: float = EPS
) -> Tensor:
    """Compute the advantage of each trajectory over its group, ``(R_i - baseline) / (deviation + eps)``.

    DeepSeekMath divides by the deviation of the group (``scale="group"``), which gives easy and hard starts equal
    weight; Dr. GRPO and RLOO do not divide.

    Args:
        returns: returns of the trajectories, ``[num_groups, G]``.
        scale: divisor: ``"none"``, the standard deviation of each group, or that of all returns.
        baseline: ``"mean"`` of the group, so that the advantages of a group sum to zero; or ``"leave_one_out"``, the
            mean of the others, which does not depend on the trajectory itself (its advantage is ``G / (G - 1)`` times
            as large).
        ddof: number that the standard deviation subtracts from the number of returns; 1 as in TRL and torchrl.
        eps: added to the standard deviation, above 0.

    Returns:
        Advantages, exactly 0 where all returns of a group are equal, ``[num_groups, G]``.

    Raises:
        ValueError: ``returns`` is not of two dimensions, a group is too small, or an option is unknown.
    """
    check_choice("scale", scale, SCALES)
    check_choice("baseline", baseline, BASELINES)
    if returns.dim() != 2:
        raise ValueError(f"returns must have the shape [num_groups, G], got {tuple(returns.shape)}; reshape them")
    size = returns.shape[-1]
    smallest = max(2 if baseline == "leave_one_out" else 1, ddof + 1 if scale == "group" else 1)
    if size < smallest:
        raise ValueError(
            f"a group must have at least {smallest} trajectories for baseline {baseline} and scale {scale}, got {size}"
        )
    differences = returns - returns[:, :1]  # exactly 0 for equal returns; subtracting their rounded mean might not be
    advantages = differences - differences.mean(dim=-1, keepdim=True)
    if baseline == "leave_one_out":
        advantages = advantages * (size / (size - 1))
    if scale == "group":
        advantages = advantages / (differences.std(dim=-1, keepdim=True, correction=ddof) + eps)
    if scale == "batch":
        advantages = advantages / (returns.std(correction=ddof) + eps)
    return advantages


def group_advantages_to_go(
    rewards: Tensor,
    mask: Tensor,
    group: Tensor,
    *,
    discount: float = 1.0,
    baseline: ToGoBaseline = "alive",
    scale: Scale = "none",
    observation: Tensor | None = None,
    step_count: Tensor | None = None,
) -> Tensor:
    """Compute the advantage of each step: its return to go minus a baseline.

    Trajectories diverge after their common start, so the first three baselines are for the same time, not for the same
    state.

    - ``alive``: mean over the trajectories that still run. The last one to run is its own baseline: advantage 0.
    - ``zero_padded``: mean over the whole group, with 0 for trajectories that have ended. With positive rewards every
      step also gets credit for the survival so far.
    - ``leave_one_out``: ``alive`` without the trajectory itself, the only one of these three that does not depend on
      its own actions. The last one to run has no other to compare with: advantage 0.
    - ``linear``: the return that `linear_baseline`, fitted to all groups, predicts for the state of the step.

    Args:
        rewards: ``[P, T]``.
        mask: true on valid steps, ``[P, T]``.
        group: group of each trajectory, equal for those that share a start, ``[P]``.
        discount: discount of one step, in [0, 1].
        baseline: one of the four above.
        scale: divisor: ``"none"``, or the standard deviation (``ddof`` 1, plus 1e-4) of the advantages after the
            baseline, over the valid steps of each group or of all.
        observation: observation of each step, for ``linear``, ``[P, T, ...]``.
        step_count: see `linear_baseline`.

    Returns:
        Advantages, 0 outside the mask, ``[P, T]``.

    Raises:
        ValueError: the shapes do not fit, an option is unknown, or ``linear`` has no observation.
    """
    check_choice("baseline", baseline, TO_GO_BASELINES)
    check_choice("scale", scale, SCALES)
    if rewards.dim() != 2 or mask.shape != rewards.shape or group.shape != rewards.shape[:1]:
        raise ValueError(
            f"rewards and mask must have the shape [P, T] and group [P], got {tuple(rewards.shape)}, "
            f"{tuple(mask.shape)} and {tuple(group.shape)}"
        )
    row, column, member = group_places(group)
    returns = returns_to_go(rewards, mask, discount=discount)
    if baseline == "linear":
        if observation is None:
            raise ValueError("baseline linear needs the observation of each step, got None")
        returns = returns - linear_baseline(returns, mask, observation, step_count)
    values = returns.new_zeros(*member.shape, returns.shape[-1]).index_put((row, column), returns)  # [N, G, T]
    running = mask.new_zeros(values.shape).index_put((row, column), mask)
    advantages = values if baseline == "linear" else _against_group(values, running, member, baseline)
    advantages = torch.where(running, advantages, 0.0)
    if scale != "none":
        advantages = advantages / (_deviation(advantages, running, whole_batch=scale == "batch") + EPS)
    return advantages[row, column]


def linear_baseline(returns: Tensor, mask: Tensor, observation: Tensor, step_count: Tensor | None = None) -> Tensor:
    """Fit the returns to go by a linear function of state and time (Duan et al. 2016, arXiv:1604.06778).

    Its inputs are the entries of the observation, their squares, and the time step with its square and cube. It is
    fitted by least squares, with a small penalty, in float64, anew in each call.

    Args:
        returns: returns to go, in reward units, ``[P, T]``.
        mask: true on valid steps; the fit uses only these, ``[P, T]``.
        observation: observation of each step, ``[P, T, ...]``.
        step_count: steps of the episode before each step, ``[P, T]``; None: all trajectories begin at a reset.

    Returns:
        Expected returns to go, in reward units, ``[P, T]``; undefined outside the mask.

    Raises:
        ValueError: ``observation`` does not begin with the shape of the mask, or ``step_count`` has another shape.
    """
    if observation.shape[:2] != mask.shape:
        raise ValueError(f"observation must have the shape {(*mask.shape, '...')}, got {tuple(observation.shape)}")
    if step_count is not None and step_count.shape != mask.shape:
        raise ValueError(
            f"step_count must have the shape of the mask {tuple(mask.shape)}, got {tuple(step_count.shape)}"
        )
    entries = observation.flatten(2).double() if observation.dim() > 2 else observation.double().unsqueeze(-1)
    if step_count is None:
        time = torch.linspace(0, 1, mask.shape[1], dtype=torch.float64, device=mask.device).expand(mask.shape)
    else:
        time = step_count.double() / step_count[mask].max().clamp(min=1)
    time = time.unsqueeze(-1)
    inputs = torch.cat([entries, entries.square(), time, time.square(), time**3], dim=-1)
    valid = inputs[mask]
    inputs = (inputs - valid.mean(dim=0)) / (valid.std(dim=0, correction=0) + 1e-8)
    fitted, targets = inputs[mask], returns[mask].double()
    penalty = RIDGE * len(targets) * torch.eye(fitted.shape[1], dtype=torch.float64, device=mask.device)
    weights = torch.linalg.solve(fitted.mT @ fitted + penalty, fitted.mT @ (targets - targets.mean()))
    return (inputs @ weights + targets.mean()).to(returns)


def group_places(group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Assign each trajectory a row and a column in a table of groups.

    Args:
        group: group of each trajectory, in any order, ``[P]``.

    Returns:
        Row and column of each trajectory, int64 ``[P]`` each: rows in ascending order of the groups, columns in the
        order of the trajectories. And the occupied places, bool ``[num_groups, G]`` with ``G`` the largest group size.
    """
    row = torch.unique(group, return_inverse=True)[1]
    sizes = torch.bincount(row)
    order = torch.argsort(row, stable=True)
    first = sizes.cumsum(dim=0) - sizes
    column = torch.empty_like(row)
    column[order] = torch.arange(len(row), device=row.device) - first[row[order]]
    places = torch.arange(int(sizes.max()) if len(sizes) else 0, device=row.device)
    return row, column, places < sizes.unsqueeze(-1)


def _against_group(values: Tensor, running: Tensor, member: Tensor, baseline: str) -> Tensor:
    """Subtract the group's mean at the same time from returns to go ``[N, G, T]``."""
    counted = member.unsqueeze(-1).expand_as(running) if baseline == "zero_padded" else running
    # subtract one of them first: exactly 0 for equal returns, where their rounded mean might leave a rest
    highest = torch.where(counted, values, -torch.inf).amax(dim=1, keepdim=True)
    differences = torch.where(counted, values - highest, 0.0)
    count = counted.sum(dim=1, keepdim=True)
    advantages = differences - differences.sum(dim=1, keepdim=True) / count.clamp(min=1)
    if baseline == "leave_one_out":
        advantages = advantages * count / (count - 1).clamp(min=1)
    return advantages


def _deviation(values: Tensor, mask: Tensor, *, whole_batch: bool) -> Tensor:
    """Return the standard deviation over valid steps of each group ``[N, 1, 1]``, or of all ``[1, 1, 1]``."""
    dims = (0, 1, 2) if whole_batch else (1, 2)
    count = mask.sum(dim=dims, keepdim=True)
    mean = values.sum(dim=dims, keepdim=True) / count.clamp(min=1)
    squares = torch.where(mask, values - mean, 0.0).square().sum(dim=dims, keepdim=True)
    return (squares / (count - 1).clamp(min=1)).sqrt()
