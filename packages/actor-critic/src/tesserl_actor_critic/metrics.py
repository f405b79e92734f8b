"""Metrics of PPO, without gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from tesserl_actor_critic.batch import Steps

METRICS = ("clip_fraction", "kl_approx", "ESS", "max_ratio", "mean_ratio", "explained_variance")


def ppo_metrics(steps: Steps, low: float, high: float, value_clip: float | None) -> dict[str, Tensor]:
    """Return the metrics of a batch, except the entropy.

    Args:
        steps: the terms of the loss.
        low: lower bound of the log-ratio.
        high: upper bound of the log-ratio.
        value_clip: how far the value may move, in reward units; None for no clip.

    Returns:
        Scalars with the names in `METRICS`, and ``value_clip_fraction`` with a value clip; NaN if there are no steps.
    """
    log_ratio = steps.log_probs.detach() - steps.old_log_probs
    value, target = steps.value.detach(), steps.value_target
    ratio = log_ratio.exp()
    if not ratio.numel():
        return dict.fromkeys(metric_keys(value_clip), ratio.new_full((), torch.nan))
    variance, mean_ratio = torch.var_mean(ratio, correction=0)
    unexplained, _ = torch.var_mean(target - value, correction=0)
    total, _ = torch.var_mean(target, correction=0)
    squared_mean = mean_ratio * mean_ratio
    metrics = {
        "clip_fraction": (log_ratio != log_ratio.clamp(low, high)).mean(dtype=ratio.dtype),
        "kl_approx": -log_ratio.mean(),
        "ESS": squared_mean / (variance + squared_mean),
        "max_ratio": ratio.max(),
        "mean_ratio": mean_ratio,
        "explained_variance": (total - unexplained) / (total + torch.finfo(total.dtype).eps),
    }
    if value_clip is not None and steps.old_value is not None:
        moved = (value - steps.old_value).abs()
        metrics["value_clip_fraction"] = (moved > value_clip).mean(dtype=moved.dtype)
    return metrics


def metric_keys(value_clip: float | None) -> list[str]:
    """Return the names of the metrics that `ppo_metrics` returns."""
    return [*METRICS, *(["value_clip_fraction"] if value_clip is not None else [])]
