"""The formulas of the group-relative policy loss: tensors in, tensors out.

Shapes: ``P`` trajectories of at most ``T`` steps, padded at the end; ``mask`` is true on the steps that were taken.
A flat batch of steps ``[S]`` can take the place of ``[P, T]`` unless a mean over each trajectory is needed. A step
outside the mask changes nothing, whatever its values.

Sources: GRPO, Shao et al. 2024 (DeepSeekMath, arXiv:2402.03300); other sources are given at their formula.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tesserl_grpo.options import (
    ImportanceLevel,
    PolicyLossKind,
    Reduction,
    check_loss_options,
    check_reduction,
    check_shapes,
)
from tesserl_grpo.reduction import reduce_steps
from tesserl_policy import clipped_ratio, log_ratio_bounds

CISPO_RATIO_HIGH = 5.0  # the bound that TRL recommends for CISPO, after ScaleRL (arXiv:2510.13786)


def importance_log_ratio(
    log_probs: Tensor, old_log_probs: Tensor, mask: Tensor | None = None, *, level: ImportanceLevel = "step"
) -> Tensor:
    """Compute the log-ratio ``log r`` of the policy to the policy that acted, per step or per trajectory.

    ``step``: ``l_t - l_old_t``. ``trajectory`` (GSPO, arXiv:2507.18071, equation 7): ``mean_t (l_t - l_old_t)`` over
    the valid steps, so that ``r`` is a geometric mean, which does not grow with the length. ``trajectory_step``
    (GSPO-token, equation 14): the same value, but a step's ratio has the gradient of its own log-probability.

    Args:
        log_probs: of the actions taken, under the policy being trained, ``[P, T]``.
        old_log_probs: of the same actions when they were taken, ``[P, T]``.
        mask: true on valid steps, ``[P, T]``; None: all are valid.
        level: one of the three above.

    Returns:
        Log-ratios, ``[P, T]``; all steps of a trajectory have its ratio. At level ``step``, 0 outside the mask.

    Raises:
        ValueError: another level than step without a dimension of trajectories.
    """
    log_ratio = log_probs - old_log_probs
    if mask is not None:
        log_ratio = torch.where(mask, log_ratio, 0.0)
    if level == "step":
        return log_ratio
    mean = _trajectory_mean(log_ratio, mask, f"importance_level {level}")
    if level == "trajectory":
        return mean
    return mean.detach() + log_ratio - log_ratio.detach()


def _trajectory_mean(values: Tensor, mask: Tensor | None, needed_by: str) -> Tensor:
    """Return the mean of each trajectory on each of its steps; ``values`` are 0 outside the mask."""
    if values.dim() < 2:
        raise ValueError(
            f"{needed_by} needs trajectories [P, T], got {tuple(values.shape)}; make minibatches of whole trajectories"
        )
    lengths = values.shape[-1] if mask is None else mask.sum(dim=-1, keepdim=True).clamp(min=1)
    return (values.sum(dim=-1, keepdim=True) / lengths).expand_as(values)


def surrogate_loss(
    log_ratio: Tensor,
    log_probs: Tensor,
    advantages: Tensor,
    *,
    kind: PolicyLossKind = "clip",
    clip_epsilon: float | Tensor = 0.2,
    clip_epsilon_high: float | Tensor | None = None,
    delta: float | None = None,
    temperatures: tuple[float, float] = (1.0, 1.05),
) -> Tensor:
    """Compute the loss of each step, with ``r`` the ratio and ``A`` the advantage.

    - ``clip`` (PPO, arXiv:1707.06347, equation 7): ``-min(r A, clip(r, 1 - low, 1 + high) A)``. ``high > low`` is
      DAPO's clip-higher (arXiv:2503.14476, equation 10). ``delta`` also bounds the first ``r``: without it the loss of
      a step with ``A < 0`` has no bound (INTELLECT-2, arXiv:2505.07291; PPO's dual clip, arXiv:1912.09729).
    - ``reinforce``: ``-A l``; correct for one pass over data of the same policy.
    - ``cispo`` (MiniMax-M1, arXiv:2506.13585, equation 4): ``-stop_gradient(min(r, high)) A l``; every step keeps a
      gradient.
    - ``sapo`` (arXiv:2511.20347, equations 5 and 6): ``-4 / t sigmoid(t (r - 1)) A``, a soft gate in place of the clip:
      the gradient of a step decreases as its ratio moves away from 1. ``t`` sets the speed:
      one value for ``A > 0``, one for the others.

    Args:
        log_ratio: log-ratio of each step, ``[P, T]``.
        log_probs: log-probabilities of the actions taken, ``[P, T]``.
        advantages: without gradient, ``[P, T]``.
        kind: one of the four above.
        clip_epsilon: how far a ratio may fall below 1, at least 0.
        clip_epsilon_high: how far it may rise above 1, at least 0; None: ``clip_epsilon``. For ``cispo`` the largest
            ratio itself, as in TRL; None: 5.
        delta: largest ratio where ``A < 0``, above ``1 + clip_epsilon_high``; None: no bound. For ``clip`` only.
        temperatures: of ``sapo``, for ``A > 0`` and for the others, above 0.

    Returns:
        Loss of each step, ``[P, T]``.
    """
    if kind == "reinforce":
        return -advantages * log_probs
    if kind == "sapo":
        positive, negative = temperatures
        temperature = negative + (positive - negative) * (advantages > 0).to(log_ratio.dtype)
        return torch.sigmoid(temperature * torch.expm1(log_ratio)) * (4 / temperature) * -advantages
    low, high = log_bounds(kind, clip_epsilon, clip_epsilon_high)
    if kind == "cispo":
        return log_ratio.detach().clamp(max=high).exp() * -advantages * log_probs
    return clipped_ratio(log_ratio, advantages, low, high, dual_clip=delta) * -advantages


def log_bounds(
    kind: PolicyLossKind, clip_epsilon: float | Tensor, clip_epsilon_high: float | Tensor | None
) -> tuple[Any, Any]:
    """Return the bounds ``(lower, upper)`` of the log-ratio outside which `surrogate_loss` clips."""
    if kind == "cispo":
        highest = CISPO_RATIO_HIGH if clip_epsilon_high is None else clip_epsilon_high
        return -math.inf, highest.log() if isinstance(highest, Tensor) else math.log(highest)
    return log_ratio_bounds(clip_epsilon, clip_epsilon_high)


def near_policy_mask(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor | None, threshold: float
) -> Tensor:
    """Select the steps that are close enough to the policy to learn from (DeepSeek-V3.2, arXiv:2512.02556, eq. 9).

    Steps with a negative advantage are left out if the mean of ``l_old - l`` over their trajectory, an estimate of the
    divergence, is above the threshold.

    Args:
        log_probs: of the actions taken, under the policy being trained, ``[P, T]``.
        old_log_probs: of the same actions when they were taken, ``[P, T]``.
        advantages: ``[P, T]``.
        mask: true on valid steps, ``[P, T]``; None: all are valid.
        threshold: in nats, above 0.

    Returns:
        False on the steps that are left out, ``[P, T]``.

    Raises:
        ValueError: there is no dimension of trajectories.
    """
    left = importance_log_ratio(old_log_probs, log_probs.detach(), mask)
    return (advantages >= 0) | (_trajectory_mean(left, mask, "off_policy_threshold") <= threshold)


def top_entropy_mask(entropy: Tensor, mask: Tensor | None, fraction: float) -> Tensor:
    """Select the valid steps at which the policy was least certain (arXiv:2506.01939).

    Args:
        entropy: entropy of the policy at each step, in nats, ``[P, T]``.
        mask: true on valid steps, ``[P, T]``; None: all are valid.
        fraction: fraction of the steps to keep, in (0, 1]; the paper keeps 0.2.

    Returns:
        True on valid steps whose entropy is at or above the ``1 - fraction`` quantile, ``[P, T]``.
    """
    entropy = entropy.detach()
    if mask is not None:
        entropy = torch.where(mask, entropy, torch.nan)  # comparisons with NaN are false
    return entropy >= torch.nanquantile(entropy, 1 - fraction)


def group_policy_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor | None = None,
    *,
    kind: PolicyLossKind = "clip",
    clip_epsilon: float | Tensor = 0.2,
    clip_epsilon_high: float | Tensor | None = None,
    delta: float | None = None,
    temperatures: tuple[float, float] = (1.0, 1.05),
    importance_level: ImportanceLevel = "step",
    off_policy_threshold: float | None = None,
    entropy: Tensor | None = None,
    top_entropy_fraction: float = 1.0,
    reduction: Reduction = "grpo",
    max_length: int | None = None,
    normalizer: float | Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Compute the group-relative policy loss (DeepSeekMath, equation 3, without its KL term) or one of its variants.

    Args:
        log_probs: log-probabilities of the actions taken, under the policy being trained, ``[P, T]``.
        old_log_probs: log-probabilities of the same actions when they were taken, ``[P, T]``; without gradient.
        advantages: ``[P, T]``; no gradient flows into them.
        mask: true on valid steps, ``[P, T]``; None: all are valid.
        kind: see `surrogate_loss`.
        clip_epsilon: see `surrogate_loss`.
        clip_epsilon_high: see `surrogate_loss`.
        delta: see `surrogate_loss`.
        temperatures: see `surrogate_loss`.
        importance_level: see `importance_log_ratio`.
        off_policy_threshold: see `near_policy_mask`; None leaves no step out. The divisor of the reduction counts all
            steps.
        entropy: entropy of the policy at each step, in nats, ``[P, T]``; for ``top_entropy_fraction`` below 1.
        top_entropy_fraction: fraction of steps, the least certain ones, that have a loss, see `top_entropy_mask`. The
            divisor of the reduction counts all steps.
        reduction: see `step_weights`.
        max_length: see `step_weights`.
        normalizer: see `step_weights`.
        weights: weight of each step from `step_weights` of the whole update, 0 outside the mask, ``[P, T]``. The loss
            is then the weighted sum for every ``reduction`` except ``"none"``.

    Returns:
        Scalar, or ``[P, T]`` with zeros outside the mask for reduction ``"none"``.

    Raises:
        ValueError: the shapes differ, or an option is out of its range.
    """
    check_loss_options(
        kind, clip_epsilon, clip_epsilon_high, delta, importance_level, top_entropy_fraction, temperatures,
        off_policy_threshold,
    )  # fmt: skip
    check_reduction(reduction, max_length)
    columns = {"old_log_probs": old_log_probs, "advantages": advantages, "entropy": entropy, "weights": weights}
    check_shapes(log_probs, mask=mask, **columns)
    log_ratio = importance_log_ratio(log_probs, old_log_probs.detach(), mask, level=importance_level)
    if mask is not None:
        advantages = torch.where(mask, advantages, 0.0)
        if kind in ("reinforce", "cispo"):  # the others read the log-ratio alone
            log_probs = torch.where(mask, log_probs, 0.0)
    losses = surrogate_loss(
        log_ratio,
        log_probs,
        advantages.detach(),
        kind=kind,
        clip_epsilon=clip_epsilon,
        clip_epsilon_high=clip_epsilon_high,
        delta=delta,
        temperatures=temperatures,
    )
    if off_policy_threshold is not None:
        near = near_policy_mask(log_probs, old_log_probs.detach(), advantages, mask, off_policy_threshold)
        losses = torch.where(near, losses, 0.0)
    if top_entropy_fraction < 1:
        if entropy is None:
            raise ValueError(f"top_entropy_fraction={top_entropy_fraction} needs entropy, got None; give it per step")
        losses = torch.where(top_entropy_mask(entropy, mask, top_entropy_fraction), losses, 0.0)
    return reduce_steps(
        losses, mask, reduction=reduction, max_length=max_length, normalizer=normalizer, weights=weights
    )
