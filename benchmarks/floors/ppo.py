"""One PPO loss on two separate networks of two tanh layers: the passes of ``PPOLoss``, in the order they run."""

import math

import torch
from torch import Tensor
from torch.nn import functional

Parameters = list[Tensor]  # weight and bias of two body layers and of one head


def network(p: Parameters, observation: Tensor) -> Tensor:
    hidden = torch.tanh(functional.linear(observation, p[0], p[1]))
    hidden = torch.tanh(functional.linear(hidden, p[2], p[3]))
    return functional.linear(hidden, p[4], p[5])


def ppo_loss(
    actor: Parameters,
    critic: Parameters,
    observation: Tensor,
    action: Tensor,
    old_log_probs: Tensor,
    advantage: Tensor,
    value_target: Tensor,
    *,
    clip_epsilon: float,
    value_coef: float,
    entropy_coef: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Clipped surrogate, half the squared value error and entropy of a batch ``[B]`` (observations ``[B, F]``).

    Returns the loss, and for metrics the entropy, the logarithms of the ratios ``[B]`` and the values ``[B]``.
    """
    std, mean = torch.std_mean(advantage)
    advantage = (advantage - mean) / (std + 1e-8)
    log_policy = functional.log_softmax(network(actor, observation), -1)
    log_ratio = log_policy.gather(-1, action.unsqueeze(-1)).squeeze(-1) - old_log_probs
    is_negative = advantage < 0  # the ratio is bounded below where the advantage is negative, else above
    lower = torch.where(is_negative, math.log1p(-clip_epsilon), -math.inf)
    upper = torch.where(is_negative, math.inf, math.log1p(clip_epsilon))
    objective = (torch.clamp(log_ratio, lower, upper).exp() * advantage).mean()
    entropy = (log_policy.exp() * log_policy).sum() / -len(action)
    value = network(critic, observation).squeeze(-1)
    value_loss = functional.mse_loss(value, value_target)
    loss = 0.5 * value_coef * value_loss - objective - entropy_coef * entropy
    return loss, entropy.detach(), log_ratio.detach(), value.detach()


def ppo_metrics(log_ratio: Tensor, value: Tensor, value_target: Tensor, *, clip_epsilon: float) -> dict[str, Tensor]:
    """The metrics that ``PPOLoss`` and torchrl's ``ClipPPOLoss`` return, besides the entropy."""
    ratio = log_ratio.exp()
    variance, mean_ratio = torch.var_mean(ratio, correction=0)
    unexplained, _ = torch.var_mean(value_target - value, correction=0)
    total, _ = torch.var_mean(value_target, correction=0)
    squared_mean = mean_ratio * mean_ratio
    is_clipped = log_ratio != log_ratio.clamp(math.log1p(-clip_epsilon), math.log1p(clip_epsilon))
    return {
        "clip_fraction": is_clipped.mean(dtype=torch.float32),
        "kl_approx": -log_ratio.mean(),
        "ESS": squared_mean / (variance + squared_mean),
        "max_ratio": ratio.max(),
        "mean_ratio": mean_ratio,
        "explained_variance": (total - unexplained) / (total + torch.finfo(total.dtype).eps),
    }
