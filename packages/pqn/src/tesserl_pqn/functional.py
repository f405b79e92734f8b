"""The formulas of parallelised Q-networks: tensors in, tensors out.

Shapes: ``*B`` any batch shape (the environments of a rollout), ``T`` steps of a rollout in order, ``K`` quantiles at
the midpoints ``(2i + 1) / 2K``, ``A`` actions. Time is the last dimension of tensors with one number per step.

Sources: PQN, Gallici et al. 2024 (arXiv:2407.04811); Q(lambda) without cut traces, Peng & Williams 1996; quantile
regression, Dabney et al. 2017 (arXiv:1710.10044); mixtures of returns, Nam et al. 2021 (arXiv:2105.11366).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


@torch.no_grad()
def q_lambda_returns(
    reward: Tensor, next_value_max: Tensor, terminated: Tensor, truncated: Tensor, *, discount: float, lambda_: float
) -> Tensor:
    """Return the lambda-returns of Q-learning (PQN, section 3.3, and Peng's Q(lambda)).

    ``G_t = r_t + gamma [(1 - lambda) max_a Q(s'_t, a) + lambda G_t+1]``. If step ``t`` terminates the
    episode, ``G_t = r_t``. If it is truncated, or the last of the rollout, ``G_t = r_t + gamma max_a Q(s'_t, a)``.
    ``s'_t`` is the state that step ``t`` led to, before any reset, so no return passes from one episode into the next.
    Traces are not cut at exploratory actions.

    The recurrence is solved in ``log2(T)`` vectorised passes. No gradient flows.

    Args:
        reward: reward of each step, ``[*B, T]``.
        next_value_max: largest action value of the state that each step led to, before any reset, in reward units,
            ``[*B, T]``; ignored where terminated.
        terminated: whether the episode ended in the environment, bool, ``[*B, T]``.
        truncated: whether the episode was cut off, bool, ``[*B, T]``.
        discount: discount of one step (gamma), in [0, 1].
        lambda_: weight of longer returns, in [0, 1]; 0 is the one-step target, 1 the discounted sum of rewards, which
            bootstraps only at the end of the rollout.

    Returns:
        Targets in reward units, ``[*B, T]``.

    Raises:
        TypeError: flags are not bool, or ``reward`` is not floating point.
        ValueError: shapes differ, there is no step, or a factor is out of its range.
    """
    flags = {"terminated": terminated, "truncated": truncated}
    _check(reward, {"next_value_max": next_value_max, **flags}, discount, lambda_)
    goes_on = ~(terminated | truncated)
    goes_on[..., -1] = False
    weight = lambda_ * goes_on.to(reward.dtype)  # weight of the next return; the rest is bootstrapped
    returns = reward + discount * (1 - weight) * next_value_max.masked_fill(terminated, 0)
    decay = discount * weight[..., :-1]
    span = 1  # returns_t holds the terms of steps t to t + span - 1, decay_t the factor of the step after them
    while span < reward.shape[-1]:
        returns[..., :-span] += decay * returns[..., span:]
        decay = decay[..., :-span] * decay[..., span:]
        span *= 2
    return returns


@torch.no_grad()
def quantile_lambda_targets(
    reward: Tensor, next_quantiles: Tensor, terminated: Tensor, truncated: Tensor, *, discount: float, lambda_: float
) -> Tensor:
    """Return quantiles of the lambda-return, the distributional form of `q_lambda_returns`.

    The return is a random variable: with probability ``1 - lambda`` it is ``r_t + gamma Z(s'_t, a*)``, else
    ``r_t + gamma G_t+1`` (the mixture of Nam et al. 2021). Each mixture is projected to ``K`` quantiles by
    `mix_quantiles`, which keeps its mean, so the mean of these targets is `q_lambda_returns` of the means. Episodes end
    as in that function. No gradient flows.

    Args:
        reward: reward of each step, ``[*B, T]``.
        next_quantiles: quantiles of the greedy action in the state that each step led to, before any reset, in reward
            units, ``[*B, T, K]`` in any order; ignored where terminated.
        terminated: whether the episode ended in the environment, bool, ``[*B, T]``.
        truncated: whether the episode was cut off, bool, ``[*B, T]``.
        discount: discount of one step (gamma), in [0, 1].
        lambda_: weight of longer returns, in [0, 1].

    Returns:
        Targets in reward units, ascending along ``K``, ``[*B, T, K]``.

    Raises:
        TypeError: flags are not bool, or ``reward`` is not floating point.
        ValueError: shapes differ, there is no step, or a factor is out of its range.
    """
    if next_quantiles.dim() != reward.dim() + 1:
        raise ValueError(
            f"next_quantiles must have one dimension more than reward {tuple(reward.shape)}, got "
            f"{tuple(next_quantiles.shape)}; take the quantiles of the greedy action"
        )
    flags = {"terminated": terminated, "truncated": truncated}
    _check(reward, {"next_quantiles": next_quantiles[..., 0], **flags}, discount, lambda_)
    bootstrap = next_quantiles.masked_fill(terminated.unsqueeze(-1), 0).sort(dim=-1).values
    ends = (terminated | truncated).unsqueeze(-1)
    last = reward.shape[-1] - 1
    targets = torch.empty_like(bootstrap)
    for t in range(last, -1, -1):
        following = bootstrap[..., t, :]
        if t < last and lambda_ > 0:
            mixed = mix_quantiles(following, targets[..., t + 1, :], lambda_)
            following = torch.where(ends[..., t, :], following, mixed)
        targets[..., t, :] = reward[..., t, None] + discount * following
    return targets


def mix_quantiles(first: Tensor, second: Tensor, weight: float) -> Tensor:
    """Return quantiles of a mixture of two distributions of equally likely values.

    The mixture is projected to ``K`` values: each is the mean of its quantile function over one of ``K`` equal segments
    of [0, 1]. This projection has the least 2-Wasserstein distance and keeps the mean of the mixture.

    Args:
        first: ``[*B, K]`` in any order.
        second: ``[*B, K]`` in any order.
        weight: probability of ``second``, in [0, 1].

    Returns:
        Quantiles, ascending, ``[*B, K]``.
    """
    number = first.shape[-1]
    values, order = torch.cat([first, second], dim=-1).sort(dim=-1)  # [*B, 2K]
    from_second = (order >= number).cumsum(dim=-1).to(values.dtype)
    from_first = torch.arange(1, 2 * number + 1, device=first.device) - from_second
    upper = (1 - weight) * from_first + weight * from_second  # cumulative probability times K: exact at the end
    lower = functional.pad(upper[..., :-1], (1, 0))
    left = torch.arange(number, device=first.device).unsqueeze(-1)  # segment i is [i, i + 1] / K
    overlap = torch.minimum(upper.unsqueeze(-2), left + 1) - torch.maximum(lower.unsqueeze(-2), left)
    return (overlap.clamp(min=0) @ values.unsqueeze(-1)).squeeze(-1)  # [*B, K, 2K] @ [*B, 2K, 1]


def greedy_quantiles(quantiles: Tensor) -> Tensor:
    """Return the quantiles of the action whose mean is the largest.

    Args:
        quantiles: quantiles of each action, in reward units, ``[*B, K, A]``.

    Returns:
        ``[*B, K]``.
    """
    return take_action(quantiles, quantiles.mean(dim=-2).argmax(dim=-1))


def take_action(quantiles: Tensor, action: Tensor) -> Tensor:
    """Return the quantiles of one action.

    Args:
        quantiles: quantiles of each action, ``[*B, K, A]``.
        action: int64 in [0, A), ``[*B]``.

    Returns:
        ``[*B, K]``.
    """
    index = action.unsqueeze(-1).unsqueeze(-1).expand(*quantiles.shape[:-1], 1)
    return quantiles.gather(-1, index).squeeze(-1)


def midpoints(number: int, *, device: torch.device | str | None = None) -> Tensor:
    """Return the fractions ``(2i + 1) / 2K`` of QR-DQN, ``[K]``, ascending in (0, 1)."""
    return (torch.arange(number, device=device, dtype=torch.float32) + 0.5) / number


def quantile_huber_loss(quantiles: Tensor, targets: Tensor, *, kappa: float = 1.0) -> Tensor:
    """Return the quantile Huber loss of quantiles at the midpoints (QR-DQN, equation 10).

    With ``u_ij = target_j - quantile_i``: ``sum_i mean_j |tau_i - 1{u_ij < 0}| * Huber_kappa(u_ij) / kappa``.

    Args:
        quantiles: predicted quantiles, in reward units, ``[*B, K]``.
        targets: target returns, in reward units, ``[*B, M]``.
        kappa: error at which the loss changes from quadratic to linear, in reward units, at least 0; 0 is the pinball
            loss.

    Returns:
        ``[*B]``.
    """
    taus = midpoints(quantiles.shape[-1], device=quantiles.device).unsqueeze(-1)  # [K, 1]
    error = targets.unsqueeze(-2) - quantiles.unsqueeze(-1)  # [*B, K, M]
    size = error.abs()
    huber = size if kappa == 0 else torch.where(size <= kappa, 0.5 * error.square() / kappa, size - 0.5 * kappa)
    weight = (taus - (error.detach() < 0).to(error.dtype)).abs()
    return (weight * huber).mean(dim=-1).sum(dim=-1)


def _check(reward: Tensor, inputs: dict[str, Tensor], discount: float, lambda_: float) -> None:
    if reward.dim() < 1 or not reward.shape[-1]:
        raise ValueError(f"reward must have the shape [*B, T] with at least one step, got {tuple(reward.shape)}")
    for name, tensor in inputs.items():
        if tensor.shape != reward.shape:
            raise ValueError(
                f"{name} must have the shape of reward {tuple(reward.shape)}, got {tuple(tensor.shape)}; "
                "give one value per step, time last"
            )
        if name in ("terminated", "truncated") and tensor.dtype != torch.bool:
            raise TypeError(f"{name} must be bool, got {tensor.dtype}; convert it with .bool()")
    if not reward.is_floating_point():
        raise TypeError(f"reward must be floating point, got {reward.dtype}; convert it with .float()")
    for name, factor in (("discount", discount), ("lambda_", lambda_)):
        if not 0 <= factor <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {factor}")
