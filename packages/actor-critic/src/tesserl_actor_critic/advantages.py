"""Generalised advantage estimation.

Shapes: ``N`` environments, ``T`` steps of each, in order.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def generalized_advantage_estimate(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    discount: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """Return the generalised advantage estimates and value targets of rollouts.

    Schulman et al. 2016 (arXiv:1506.02438), equation 16, with episode ends:
    ``delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t)`` and
    ``A_t = delta_t + gamma lambda (1 - done_t) A_t+1`` with ``done = terminated | truncated``. ``s'_t`` is the state
    after step ``t``, before any reset: a truncated episode bootstraps from it. Advantages do not propagate across
    episode ends.

    The recurrence is solved in ``log2(T)`` vectorised passes; each pass doubles the number of steps that are summed. No
    gradient flows.

    Args:
        reward: reward of each step, ``[N, T]`` or ``[N, T, 1]``.
        value: ``V(s_t)``, in reward units, same shape.
        next_value: ``V(s'_t)`` of the state before any reset, same shape; ignored where terminated.
        terminated: whether the episode ended in the environment, bool, same shape.
        truncated: whether the episode was cut off, bool, same shape.
        discount: discount of one step (gamma), in [0, 1].
        gae_lambda: weight of longer returns (lambda), in [0, 1]; 0 gives the one-step error, 1 the return minus the
            value.

    Returns:
        (advantage, value target), in reward units, in the shape of ``reward``; the target is the advantage plus the
        value.

    Raises:
        TypeError: the flags are not bool, or ``reward`` is not floating point.
        ValueError: the shapes differ or are not as above, or a factor is out of its range.
    """
    inputs = {"value": value, "next_value": next_value, "terminated": terminated, "truncated": truncated}
    _check(reward, inputs, discount, gae_lambda)
    shape = reward.shape[:2]
    goes_on = ~(terminated | truncated).reshape(shape)[:, :-1]
    decay = goes_on.to(reward.dtype) * (discount * gae_lambda)
    advantage = reward + discount * next_value.masked_fill(terminated, 0) - value
    summed = advantage.view(shape)
    span = 1  # summed_t: terms of steps t to t + span - 1; decay_t: factor of step t + span
    while span < shape[1]:
        summed[:, :-span] += decay * summed[:, span:]
        decay = decay[:, :-span] * decay[:, span:]
        span *= 2
    return advantage, advantage + value


def _check(reward: Tensor, inputs: dict[str, Tensor], discount: float, gae_lambda: float) -> None:
    if reward.dim() != 2 and (reward.dim() != 3 or reward.shape[2] != 1):
        raise ValueError(
            f"reward must have the shape [N, T] or [N, T, 1], got {tuple(reward.shape)}; time is the second dimension"
        )
    for name, tensor in inputs.items():
        if tensor.shape != reward.shape:
            raise ValueError(
                f"{name} must have the shape of reward {tuple(reward.shape)}, got {tuple(tensor.shape)}; "
                "all five have one value per step"
            )
        if name in ("terminated", "truncated") and tensor.dtype != torch.bool:
            raise TypeError(f"{name} must be bool, got {tensor.dtype}; convert it with .bool()")
    if not reward.is_floating_point():
        raise TypeError(f"reward must be floating point, got {reward.dtype}; convert it with .float()")
    for name, factor in (("discount", discount), ("gae_lambda", gae_lambda)):
        if not 0 <= factor <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {factor}")
