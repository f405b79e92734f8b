"""One GRPO loss of a categorical policy: the passes of ``GRPOLoss`` on a flat minibatch, written down."""

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
) -> Tensor:
    """Clipped loss, entropy and k3 divergence of steps ``[S]`` (observations ``[S, F]``); a coefficient of 0 skips."""
    hidden = torch.tanh(functional.linear(observation, p[0], p[1]))
    hidden = torch.tanh(functional.linear(hidden, p[2], p[3]))
    log_policy = functional.log_softmax(functional.linear(hidden, p[4], p[5]), dim=-1)
    log_probs = log_policy.gather(-1, action.unsqueeze(-1)).squeeze(-1)
    ratio = (log_probs - old_log_probs).exp()
    clipped = ratio.clamp(1 - clip_epsilon, 1 + clip_epsilon)
    losses = -torch.minimum(ratio * advantages, clipped * advantages)
    if entropy_coef:
        losses = losses + entropy_coef * (log_policy.exp() * log_policy).sum(dim=-1)
    if kl_coef:
        difference = reference_log_probs - log_probs
        losses = losses + kl_coef * (difference.expm1() - difference)
    return torch.dot(losses, step_weights)
