"""One GRPO loss of a categorical policy: the passes of ``GRPOLoss`` on a flat minibatch, in the order they run."""

import math

import torch
from torch import Tensor
from torch.nn import functional

Parameters = list[Tensor]  # weight and bias of two body layers and of the head


def grpo_loss(
    p: Parameters,
    observation: Tensor,
    action: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    step_weights: Tensor,
    reference_log_probs: Tensor,
    *,
    clip_epsilon: float,
    entropy_coef: float,
    kl_coef: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clipped loss, entropy and k3 divergence of steps ``[S]`` (observations ``[S, F]``); a coefficient of 0 skips.

    Returns the loss, and for metrics the logarithms of the ratios and the other terms, ``[S]``.
    """
    hidden = torch.tanh(functional.linear(observation, p[0], p[1]))
    hidden = torch.tanh(functional.linear(hidden, p[2], p[3]))
    log_policy = functional.log_softmax(functional.linear(hidden, p[4], p[5]), dim=-1)
    log_probs = log_policy.gather(-1, action.unsqueeze(-1)).squeeze(-1)
    log_ratio = log_probs - old_log_probs
    is_negative = advantages < 0  # the ratio is bounded below where the advantage is negative, else above
    lower = torch.where(is_negative, math.log1p(-clip_epsilon), -math.inf)
    upper = torch.where(is_negative, math.inf, math.log1p(clip_epsilon))
    losses, terms = torch.clamp(log_ratio, lower, upper).exp() * -advantages, {"log_ratio": log_ratio.detach()}
    if entropy_coef:
        negative_entropy = (log_policy.exp() * log_policy).sum(dim=-1)
        losses = losses + entropy_coef * negative_entropy
        terms["negative_entropy"] = negative_entropy.detach()
    if kl_coef:
        difference = reference_log_probs - log_probs
        divergence = difference.expm1() - difference
        losses = losses + kl_coef * divergence
        terms["kl"] = divergence.detach()
    return torch.dot(losses, step_weights), terms


def grpo_metrics(
    log_ratio: Tensor,
    advantages: Tensor,
    negative_entropy: Tensor,
    kl: Tensor | None = None,
    *,
    clip_epsilon: float,
) -> dict[str, Tensor]:
    """The metrics that ``GRPOLoss`` returns."""
    low = ((log_ratio < math.log1p(-clip_epsilon)) & (advantages < 0)).mean(dtype=torch.float32)
    high = ((log_ratio > math.log1p(clip_epsilon)) & (advantages > 0)).mean(dtype=torch.float32)
    metrics = {
        "entropy": -negative_entropy.mean(),
        "kl_approx": -log_ratio.mean(),
        "clip_ratio/low_mean": low,
        "clip_ratio/high_mean": high,
        "clip_ratio/region_mean": low + high,
    }
    return metrics if kl is None else {**metrics, "kl": kl.mean()}
