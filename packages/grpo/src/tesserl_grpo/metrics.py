"""Metrics under TRL's names: ``docs/grpo.md`` says which values are healthy and what zero means."""

from __future__ import annotations

from torch import Tensor

from tesserl_grpo.functional import log_bounds
from tesserl_grpo.options import PolicyLossKind
from tesserl_policy import masked_mean


def policy_metrics(
    log_ratio: Tensor,
    advantages: Tensor,
    entropy: Tensor,
    mask: Tensor | None = None,
    *,
    divergence: Tensor | None = None,
    kind: PolicyLossKind = "clip",
    clip_epsilon: float | Tensor = 0.2,
    clip_epsilon_high: float | Tensor | None = None,
) -> dict[str, Tensor]:
    """Compute metrics as means over the valid steps of a minibatch.

    Args:
        log_ratio: of each step, see `importance_log_ratio`, ``[P, T]``.
        advantages: ``[P, T]``.
        entropy: of the policy, in nats, ``[P, T]``.
        mask: true on valid steps, ``[P, T]``; None: all are valid.
        divergence: from the reference, in nats, ``[P, T]``; None: there is none.
        kind: see `surrogate_loss`.
        clip_epsilon: see `surrogate_loss`.
        clip_epsilon_high: see `surrogate_loss`.

    Returns:
        ``entropy``; ``kl`` (to the reference); ``kl_approx`` (to the policy that acted, the mean of ``-log r``); and
        the fractions of steps that the clip leaves without a gradient: ``clip_ratio/low_mean`` (below it, at a negative
        advantage), ``clip_ratio/high_mean`` (above it, at a positive one), their sum ``clip_ratio/region_mean``. For
        ``cispo``, which leaves none, ``cispo_clip_ratio`` is the fraction whose weight is at its bound, at a positive
        advantage.
    """
    steps = {"entropy": entropy, "kl_approx": -log_ratio}
    if divergence is not None:
        steps["kl"] = divergence
    if kind in ("clip", "cispo"):
        low, high = log_bounds(kind, clip_epsilon, clip_epsilon_high)
        is_high = (log_ratio > high) & (advantages > 0)
        if kind == "cispo":
            steps["cispo_clip_ratio"] = is_high
        else:
            steps["clip_ratio/high_mean"] = is_high
            steps["clip_ratio/low_mean"] = (log_ratio < low) & (advantages < 0)
    metrics = {name: masked_mean(values, mask) for name, values in steps.items()}
    if kind == "clip":
        metrics["clip_ratio/region_mean"] = metrics["clip_ratio/low_mean"] + metrics["clip_ratio/high_mean"]
    return metrics


def group_metrics(returns: Tensor, lengths: Tensor, cut: Tensor, zero_variance: Tensor) -> dict[str, float]:
    """Compute the metrics of a batch of groups, before any trajectory is left out.

    Args:
        returns: of the trajectories, in reward units, ``[num_groups, G]``.
        lengths: of the trajectories, in steps, ``[P]``.
        cut: true for trajectories that ended without termination, bool ``[P]``.
        zero_variance: true for groups whose returns are all equal, bool ``[num_groups]``.

    Returns:
        ``reward``, ``reward_std`` (mean over groups of the deviation inside of each), ``frac_reward_zero_std``,
        ``completions/mean_length``, ``completions/min_length``, ``completions/max_length`` and
        ``completions/clipped_ratio`` (fraction of trajectories that were cut).
    """
    steps = lengths.float()
    values = {
        "reward": returns.mean(),
        "reward_std": returns.std(dim=-1, correction=1 if returns.shape[-1] > 1 else 0).mean(),
        "frac_reward_zero_std": zero_variance.float().mean(),
        "completions/mean_length": steps.mean(),
        "completions/min_length": steps.min(),
        "completions/max_length": steps.max(),
        "completions/clipped_ratio": cut.float().mean(),
    }
    return {name: float(value) for name, value in values.items()}
