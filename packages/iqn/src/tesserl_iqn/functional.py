"""The formulas of implicit quantile networks: tensors in, tensors out.

Shapes: ``*B`` any batch shape (action blocks are one more batch dimension), ``N`` online taus, ``M`` target taus,
``K`` any number of taus, ``A`` actions.

Fractions are in `tesserl_iqn.fractions`, the losses over pairs of quantiles in `tesserl_iqn.quantile_loss`.

Sources: IQN, Dabney et al. 2018 (arXiv:1806.06923); Munchausen RL, Vieillard et al. 2020 (arXiv:2007.14430).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cosine_features(taus: Tensor, num_cosines: int, *, start: int = 0) -> Tensor:
    """Return the cosine features of quantile fractions, ``cos(pi * i * tau)`` (IQN, equation 4).

    Args:
        taus: quantile fractions in [0, 1], ``[*B, K]``, in float32 or wider; bfloat16 would round away the fraction of
            ``63 * tau``.
        num_cosines: number of features, at least 1.
        start: first index ``i``. The paper and BTR count from 0 (the first feature is the constant 1), Dopamine's
            family from 1. Weights trained with one do not work with the other.

    Returns:
        Features in [-1, 1], ``[*B, K, num_cosines]``, in the dtype of ``taus``.
    """
    frequencies = cosine_frequencies(num_cosines, start, device=taus.device, dtype=taus.dtype)
    return torch.cos(taus.unsqueeze(-1) * frequencies)


def cosine_frequencies(
    num_cosines: int, start: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Return ``pi * i`` for ``num_cosines`` indices ``i`` from ``start`` on, ``[num_cosines]``."""
    last = start + num_cosines - 1
    return torch.linspace(start * math.pi, last * math.pi, num_cosines, device=device, dtype=dtype)


def take_action(quantiles: Tensor, action: Tensor) -> Tensor:
    """Return the quantiles of one action.

    Args:
        quantiles: return of every action at K fractions, ``[*B, K, A]``.
        action: int64 in [0, A), ``[*B]``.

    Returns:
        Its quantiles, ``[*B, K]``.
    """
    index = action.unsqueeze(-1).unsqueeze(-1).expand(*quantiles.shape[:-1], 1)
    return quantiles.gather(-1, index).squeeze(-1)


def quantile_td_target(reward: Tensor, discount: Tensor, next_quantiles: Tensor, next_action: Tensor) -> Tensor:
    """Compute target quantiles ``r + discount * Z_tau(s', a')`` (IQN).

    Args:
        reward: (n-step) reward, ``[*B]``.
        discount: the whole factor of the bootstrap, ``discount ** steps * (1 - terminated)``, in [0, 1], ``[*B]``.
        next_quantiles: return of every action at M fractions in the next state, in reward units, ``[*B, M, A]``.
        next_action: the action to bootstrap on, int64 in [0, A), ``[*B]``.

    Returns:
        Targets in reward units, ``[*B, M]``.

    Raises:
        ValueError: ``reward``, ``discount`` or ``next_action`` is not of the batch shape.
    """
    _check_batch_shape(next_quantiles, reward=reward, discount=discount, next_action=next_action)
    return reward.unsqueeze(-1) + discount.unsqueeze(-1) * take_action(next_quantiles, next_action)


def scaled_log_policy(action_value: Tensor, temperature: float | Tensor) -> Tensor:
    """Compute ``temperature * log softmax(action_value / temperature)``, without overflow (Munchausen RL).

    The largest value is subtracted first: ``exp(q / 0.03)`` alone overflows float32 from q = 2.7 on.

    Args:
        action_value: expected return of every action, in reward units, ``[*B, A]``.
        temperature: entropy temperature, in reward units, above 0.

    Returns:
        Scaled log-probabilities, at most 0, in reward units, ``[*B, A]``.
    """
    shifted = action_value - action_value.amax(dim=-1, keepdim=True)
    return shifted - temperature * torch.logsumexp(shifted / temperature, dim=-1, keepdim=True)


def munchausen_target(
    reward: Tensor,
    discount: Tensor,
    action: Tensor,
    action_value: Tensor,
    next_action_value: Tensor,
    next_quantiles: Tensor,
    *,
    alpha: float | Tensor = 0.9,
    temperature: float | Tensor = 0.03,
    clip: float | Tensor = -1.0,
) -> Tensor:
    """Compute the Munchausen target quantiles (M-IQN, from Munchausen RL).

    ``r + alpha * clip(T log pi(a|s), clip, 0) + discount * sum_a' pi(a'|s') (Z_tau(s', a') - T log pi(a'|s'))`` with
    ``pi = softmax(q / T)``. The bonus clips ``T log pi``; the bootstrap does not. With n-step rewards only the first
    step has a bonus, as in every published implementation. Actions that `tesserl_policy.mask_actions` forbids have
    probability 0.

    Args:
        reward: (n-step) reward, ``[*B]``.
        discount: the whole factor of the bootstrap, ``discount ** steps * (1 - terminated)``, in [0, 1], ``[*B]``.
        action: the action taken, int64 in [0, A), ``[*B]``.
        action_value: expected return of every action in the current state, ``[*B, A]``.
        next_action_value: expected return of every action in the next state, ``[*B, A]``.
        next_quantiles: return of every action at M fractions in the next state, ``[*B, M, A]``.
        alpha: weight of the bonus, in [0, 1]; 0 is the soft target without bonus.
        temperature: entropy temperature, in reward units, above 0.
        clip: lower bound of the scaled log-policy in the bonus, in reward units, at most 0.

    Returns:
        Targets in reward units, ``[*B, M]``.

    Raises:
        ValueError: a tensor is not of the batch shape.
    """
    _check_batch_shape(next_quantiles, reward=reward, discount=discount, action=action)
    log_policy = scaled_log_policy(action_value, temperature).gather(-1, action.unsqueeze(-1)).squeeze(-1)
    bonus = alpha * log_policy.clamp(max=0).clamp(min=clip)
    next_log_policy = scaled_log_policy(next_action_value, temperature).unsqueeze(-2)  # [*B, 1, A]
    next_policy = torch.exp(next_log_policy / temperature)
    soft_return = (next_policy * (next_quantiles - next_log_policy)).sum(dim=-1)
    return (reward + bonus).unsqueeze(-1) + discount.unsqueeze(-1) * soft_return


def self_loss_factor(
    self_loss: Tensor,
    typical: Tensor,
    typical_clamped: Tensor,
    *,
    clamp_ratio: float = 4.0,
    decay: float = 0.99,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the factor that makes the loss of a transition independent of the spread of its returns (Linesight).

    With noisy returns even a perfect prediction has a large loss: that of the target distribution against itself. Let
    ``s = sqrt(self_loss)``, ``t <- decay * t + (1 - decay) * mean(s)``, ``c = max(s, t / clamp_ratio)`` and
    ``T <- decay * T + (1 - decay) * mean(c)``. The factor is ``T / c``: a typical transition keeps its loss, and no
    loss grows by more than about ``clamp_ratio``. The first batch initialises both running means.

    Args:
        self_loss: quantile Huber loss of the targets against themselves, at least 0, ``[*B]``.
        typical: running mean ``t``, a scalar in float64; 0 before the first batch.
        typical_clamped: running mean ``T``, a scalar in float64; 0 before the first batch.
        clamp_ratio: factor below the running mean at which a self-loss is clamped, at least 1.
        decay: decay of the running means, in [0, 1).
        mask: elements that change the means, bool, ``[*B]``; None for all.

    Returns:
        The factor of each loss, ``[*B]``, and both running means after this batch.
    """
    spread = self_loss.clamp(min=0).sqrt()  # rounding may leave a loss of 0 slightly negative
    typical = _running_mean(typical, spread, decay, mask)
    clamped = spread.clamp(min=typical / clamp_ratio)
    typical_clamped = _running_mean(typical_clamped, clamped, decay, mask)
    # if all returns were certain so far, there is nothing to divide by
    factor = torch.where(clamped > 0, typical_clamped / clamped, 1.0).to(self_loss.dtype)
    return factor, typical, typical_clamped


def _running_mean(mean: Tensor, values: Tensor, decay: float, mask: Tensor | None) -> Tensor:
    """Return the running mean after new values; a mean of 0 is replaced by that of the values."""
    counted = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
    value = torch.where(counted, values, 0.0).sum() / counted.sum().clamp(min=1)
    return torch.where(mean > 0, decay * mean + (1 - decay) * value, value)


def _check_batch_shape(next_quantiles: Tensor, **tensors: Tensor) -> None:
    """Refuse tensors that would broadcast silently to ``[B, B]``, such as a reward of ``[B, 1]``."""
    batch_shape = next_quantiles.shape[:-2]
    for name, tensor in tensors.items():
        if tensor.shape != batch_shape:
            raise ValueError(
                f"{name} must have the batch shape of next_quantiles {tuple(batch_shape)}, got {tuple(tensor.shape)}; "
                "drop or add singleton dimensions before the call"
            )
