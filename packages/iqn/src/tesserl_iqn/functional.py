"""The formulas of implicit quantile networks: tensors in, tensors out.

Shapes: ``*B`` any batch shape (action blocks are one more batch dimension), ``N`` online taus, ``M`` target taus,
``K`` any number of taus, ``A`` actions. Every function takes any number of leading dimensions where it says ``*B``.

Sources: IQN, Dabney et al. 2018 (arXiv:1806.06923); Munchausen RL, Vieillard et al. 2020 (arXiv:2007.14430).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

RiskKind = Literal["cvar", "wang", "pow", "cpw"]
TauSampling = Literal["uniform", "stratified", "antithetic", "midpoints"]
RISK_KINDS, TAU_SAMPLINGS = get_args(RiskKind), get_args(TauSampling)


def cosine_features(taus: Tensor, num_cosines: int, *, start: int = 0) -> Tensor:
    """Cosine features of quantile fractions, ``cos(pi * i * tau)`` (IQN, equation 4).

    Args:
        taus: quantile fractions in [0, 1], ``[*B, K]``, in float32 or wider: in bfloat16 ``63 * tau``
            has lost its fraction.
        num_cosines: number of features, at least 1.
        start: first index ``i``. The paper and BTR count from 0 (the first feature is the constant 1), Dopamine's
            family from 1; weights trained with one do not fit the other.

    Returns:
        Features in [-1, 1], ``[*B, K, num_cosines]``, in the dtype of ``taus``.
    """
    last = start + num_cosines - 1
    frequencies = torch.linspace(start * math.pi, last * math.pi, num_cosines, device=taus.device, dtype=taus.dtype)
    return torch.cos(taus.unsqueeze(-1) * frequencies)


def sample_taus(
    batch_shape: Sequence[int],
    num_taus: int,
    *,
    kind: TauSampling = "uniform",
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Draw quantile fractions; each of them is uniform on [0, 1], except ``midpoints``.

    ``stratified`` draws one fraction in each of ``num_taus`` equal segments. ``antithetic`` (Linesight) draws one in
    each of ``num_taus / 2`` equal segments of [0, 0.5) and mirrors them to ``1 - tau``. Both lower the variance of a
    mean over taus. ``midpoints`` are the fixed ``(2i + 1) / (2 num_taus)`` of QR-DQN (arXiv:1710.10044); they draw
    nothing.

    Args:
        batch_shape: the shape ``*B`` of the batch.
        num_taus: number of fractions ``K`` for each element of the batch, at least 1; even for ``antithetic``.
        kind: how to draw.
        generator: source of randomness; default: torch's global one.
        device: device of the result; default: torch's.
        dtype: floating dtype of the result; default: torch's.

    Returns:
        Fractions, ``[*B, K]``; ascending along ``K`` for ``stratified`` and ``midpoints``.

    Raises:
        ValueError: ``num_taus`` is below 1, or odd with ``antithetic``, or ``kind`` is unknown.
    """
    check_tau_sampling(kind, num_taus)
    shape = (*batch_shape, num_taus)
    if kind == "uniform":
        return torch.rand(shape, generator=generator, device=device, dtype=dtype)
    num_segments = num_taus // 2 if kind == "antithetic" else num_taus
    left_edges = torch.arange(num_segments, device=device, dtype=dtype or torch.get_default_dtype())
    if kind == "midpoints":
        return ((left_edges + 0.5) / num_taus).expand(shape)
    offsets = torch.rand((*batch_shape, num_segments), generator=generator, device=device, dtype=dtype)
    taus = (left_edges + offsets) / num_taus
    return torch.cat([taus, 1 - taus], dim=-1) if kind == "antithetic" else taus


def check_tau_sampling(kind: str, num_taus: int) -> None:
    """Refuse a way of drawing taus that does not exist or does not fit their number.

    Args:
        kind: how to draw, one of ``TauSampling``.
        num_taus: how many to draw.

    Raises:
        ValueError: ``num_taus`` is below 1, or odd with ``antithetic``, or ``kind`` is unknown.
    """
    if kind not in TAU_SAMPLINGS:
        raise ValueError(f"tau sampling must be one of {', '.join(TAU_SAMPLINGS)}, got {kind!r}")
    if num_taus < 1:
        raise ValueError(f"number of taus must be at least 1, got {num_taus}")
    if kind == "antithetic" and num_taus % 2:
        raise ValueError(f"antithetic taus come in pairs: their number must be even, got {num_taus}; use stratified")


def distort_taus(taus: Tensor, kind: RiskKind, eta: float) -> Tensor:
    """Distort quantile fractions to act with a preference about risk (IQN, its section on risk-sensitive policies).

    Acting on the mean of ``Z`` at the distorted fractions maximises a distorted expectation; training keeps taus
    uniform.

    - ``cvar``: ``eta * tau``, the mean of the worst fraction ``eta`` in (0, 1]; 1 is risk neutral.
    - ``wang``: ``Phi(Phi^-1(tau) + eta)``, any real eta; below 0 averse, above 0 seeking.
    - ``pow``: ``tau ** (1 / (1 + |eta|))`` for eta >= 0 (seeking), else ``1 - (1 - tau) ** (1 / (1 + |eta|))``
      (averse).
    - ``cpw``: ``tau**eta / (tau**eta + (1 - tau)**eta) ** (1 / eta)``, eta > 0, cumulative prospect theory (people:
      0.71); 1 is neutral.

    Args:
        taus: fractions in [0, 1], ``[*B, K]``.
        kind: which distortion.
        eta: its strength, see above.

    Returns:
        Fractions in [0, 1], in the shape of ``taus``.

    Raises:
        ValueError: ``kind`` is unknown or ``eta`` is out of its range.
    """
    check_risk(kind, eta)
    if kind == "cvar":
        return eta * taus
    if kind == "wang":
        return torch.special.ndtr(torch.special.ndtri(taus) + eta)
    if kind == "pow":
        exponent = 1.0 / (1.0 + abs(eta))
        return taus**exponent if eta >= 0 else 1 - (1 - taus) ** exponent
    powered = taus**eta
    return powered / (powered + (1 - taus) ** eta) ** (1.0 / eta)


def check_risk(kind: str, eta: float) -> None:
    """Refuse a distortion of risk that does not exist or whose strength is out of range.

    Args:
        kind: which distortion, one of ``RiskKind``.
        eta: its strength, see `distort_taus`.

    Raises:
        ValueError: ``kind`` is unknown or ``eta`` is out of its range.
    """
    if kind not in RISK_KINDS:
        raise ValueError(f"risk distortion must be one of {', '.join(RISK_KINDS)}, got {kind!r}")
    if not math.isfinite(eta):
        raise ValueError(f"eta of the risk distortion {kind} must be finite, got {eta}")
    if kind == "cvar" and not 0 < eta <= 1:
        raise ValueError(f"eta of cvar must be in (0, 1], got {eta}; 0.1 acts on the mean of the worst tenth")
    if kind == "cpw" and eta <= 0:
        raise ValueError(f"eta of cpw must be positive, got {eta}; 0.71 fits people, 1 is neutral")


def quantile_huber_loss(quantiles: Tensor, taus: Tensor, targets: Tensor, *, kappa: float = 1.0) -> Tensor:
    """Quantile Huber loss between predicted quantiles and sampled targets (IQN).

    With ``u_ij = target_j - quantile_i``: ``sum_i mean_j |tau_i - 1{u_ij < 0}| * Huber_kappa(u_ij) / kappa``. Without
    the division by ``kappa`` a small kappa would shrink the loss (dqn_zoo leaves it out); the sum is over the
    predictions, so that N and M may differ (Tianshou sums over the targets).

    Args:
        quantiles: predicted return at each fraction, in reward units, ``[*B, N]``.
        taus: the fractions of the predictions, in [0, 1], ``[*B, N]``; no gradient flows into them.
        targets: sampled target returns, in reward units, ``[*B, M]``; detached by the caller.
        kappa: where the loss turns from quadratic to linear, in reward units; 0 is the pinball loss
            ``|tau - 1{u < 0}| * |u|``.

    Returns:
        Loss of each element of the batch, ``[*B]``.

    Raises:
        ValueError: ``taus`` differ from ``quantiles`` in shape, ``targets`` have another batch shape, or kappa < 0.
    """
    if taus.shape != quantiles.shape:
        raise ValueError(
            f"taus must have the shape of quantiles {tuple(quantiles.shape)}, got {tuple(taus.shape)}; "
            "draw one tau per quantile"
        )
    if targets.shape[:-1] != quantiles.shape[:-1]:
        raise ValueError(
            f"targets must have the batch shape of quantiles {tuple(quantiles.shape[:-1])} and one more dimension, "
            f"got {tuple(targets.shape)}"
        )
    if kappa < 0:
        raise ValueError(f"kappa must be at least 0, got {kappa}; 0 is the pinball loss")
    taus = taus.detach().unsqueeze(-1)
    shape = (*quantiles.shape, targets.shape[-1])  # [*B, N, M]
    predicted = quantiles.unsqueeze(-1).expand(shape)
    target = targets.unsqueeze(-2).expand(shape)
    # smooth L1 with beta is Huber with delta = beta divided by beta, and L1 for beta = 0: exactly the two cases here
    huber = functional.smooth_l1_loss(predicted, target, reduction="none", beta=kappa)
    weight = torch.where(target < predicted, 1 - taus, taus)
    return (weight * huber).sum(dim=(-2, -1)) / targets.shape[-1]


def absolute_td_error(quantiles: Tensor, targets: Tensor) -> Tensor:
    """Mean of ``|target_j - quantile_i|`` over all pairs, the priority of prioritised replay.

    BTR sums over the predictions instead, which is N times this and gives the same distribution of draws.

    Args:
        quantiles: predicted return at each fraction, in reward units, ``[*B, N]``.
        targets: sampled target returns, in reward units, ``[*B, M]``.

    Returns:
        Absolute temporal difference error without gradient, in reward units, ``[*B]``.
    """
    with torch.no_grad():
        return (targets.unsqueeze(-2) - quantiles.unsqueeze(-1)).abs_().mean(dim=(-2, -1))


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
    """Sampled returns ``r + discount * Z_tau(s', a')`` (IQN).

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


def scaled_log_policy(action_value: Tensor, temperature: float) -> Tensor:
    """``temperature * log softmax(action_value / temperature)``, without overflow (Munchausen RL).

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
    alpha: float = 0.9,
    temperature: float = 0.03,
    clip: float = -1.0,
) -> Tensor:
    """Munchausen target for sampled returns: the M-IQN of Munchausen RL.

    ``r + alpha * clip(T log pi(a|s), clip, 0) + discount * sum_a' pi(a'|s') (Z_tau(s', a') - T log pi(a'|s'))`` with
    ``pi = softmax(q / T)``. The clip is on ``T log pi``; the bootstrap's log-policy is not clipped. With n-step rewards
    the bonus is that of the first step, as in every published implementation.

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
    bonus = alpha * log_policy.clamp(min=clip, max=0)
    next_log_policy = scaled_log_policy(next_action_value, temperature).unsqueeze(-2)  # [*B, 1, A]
    next_policy = torch.exp(next_log_policy / temperature)
    soft_return = (next_policy * (next_quantiles - next_log_policy)).sum(dim=-1)
    return (reward + bonus).unsqueeze(-1) + discount.unsqueeze(-1) * soft_return


def _check_batch_shape(next_quantiles: Tensor, **tensors: Tensor) -> None:
    """Refuse tensors that would broadcast to ``[B, B]`` without a word, such as a reward of ``[B, 1]``."""
    batch_shape = next_quantiles.shape[:-2]
    for name, tensor in tensors.items():
        if tensor.shape != batch_shape:
            raise ValueError(
                f"{name} must have the batch shape of next_quantiles {tuple(batch_shape)}, got {tuple(tensor.shape)}; "
                "drop or add singleton dimensions before the call"
            )
