"""Losses over all pairs of predicted and target quantiles, from a table of pairs or in closed form.

Shapes: ``*B`` any batch shape, ``N`` predicted quantiles, ``M`` targets. With ``u_ij = target_j - quantile_i`` both
losses are sums over ``j`` of functions that are piecewise polynomials of ``quantile_i``. The closed form sorts the
targets once, keeps their prefix sums, and finds for each quantile how many targets lie below each bend: ``O((N + M) log
M)`` for each element of the batch instead of ``O(N M)``, and no ``[*B, N, M]`` in memory or in the graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import pad

from tesserl_policy import at_least_float32

# Pairs of the whole batch up to which the table is made on a CPU. Forward and backward in ms of one core's time, table
# and closed form: batch 32, N = M = 40: 0.32, 0.35; 48: 0.43, 0.38; 200: 8.4, 1.1. Batch 128, N = M = 8: 0.14, 0.33;
# 24: 0.57, 0.60; 32: 0.83, 0.68; 64: 3.3, 1.2; 200: 40, 4.7. Batch 256, N = M = 16: 0.53, 0.65; 24: 1.10, 0.87.
TABLE_LIMIT = 80_000
# The same for one element of the batch on other devices, where large tables are cheap and many small kernels are not.
TABLE_LIMIT_OF_ELEMENTS = 2048


def quantile_huber_loss(quantiles: Tensor, taus: Tensor, targets: Tensor, *, kappa: float = 1.0) -> Tensor:
    """Compute the quantile Huber loss between predicted quantiles and sampled targets (IQN).

    With ``u_ij = target_j - quantile_i``: ``sum_i mean_j |tau_i - 1{u_ij < 0}| * Huber_kappa(u_ij) / kappa``. The
    division by ``kappa`` keeps the size of the loss for a small kappa (dqn_zoo does not divide). The sum is over
    predictions, so N and M may differ (Tianshou sums over targets).

    Args:
        quantiles: predicted return at each fraction, in reward units, ``[*B, N]``.
        taus: the fractions of the predictions, in [0, 1], ``[*B, N]``; no gradient flows into them.
        targets: sampled target returns, in reward units, ``[*B, M]``; no gradient flows into them.
        kappa: error at which the loss changes from quadratic to linear, in reward units; 0 is the pinball loss
            ``|tau - 1{u < 0}| * |u|``.

    Returns:
        Loss of each element of the batch, ``[*B]``, in float32 or wider.

    Raises:
        ValueError: ``taus`` differ from ``quantiles`` in shape, ``targets`` have another batch shape, or kappa < 0.
    """
    return quantile_losses(quantiles, taus, targets, kappa=kappa)[0]


def quantile_losses(quantiles: Tensor, taus: Tensor, targets: Tensor, *, kappa: float = 1.0) -> tuple[Tensor, Tensor]:
    """Compute `quantile_huber_loss` and `absolute_td_error` together, at the cost of the loss alone.

    Args:
        quantiles: predicted return at each fraction, in reward units, ``[*B, N]``.
        taus: the fractions of the predictions, in [0, 1], ``[*B, N]``.
        targets: sampled target returns, in reward units, ``[*B, M]``.
        kappa: threshold of the Huber loss, in reward units, at least 0.

    Returns:
        Loss, and absolute temporal difference error without gradient, each ``[*B]``, in float32 or wider.

    Raises:
        ValueError: see `quantile_huber_loss`.
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
    quantiles, taus, targets = at_least_float32(quantiles), at_least_float32(taus.detach()), targets.detach()
    form = _by_table if _prefers_table(quantiles, targets) else _in_closed_form
    return form(quantiles, taus, at_least_float32(targets), kappa)


def absolute_td_error(quantiles: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean of ``|target_j - quantile_i|`` over all pairs, the priority of prioritised replay.

    BTR sums over predictions, which is N times this. The scale matters only for new transitions: their priority is the
    largest so far and at least 1, so with the mean they are drawn more often if errors are below 1.

    Args:
        quantiles: predicted return at each fraction, in reward units, ``[*B, N]``.
        targets: sampled target returns, in reward units, ``[*B, M]``.

    Returns:
        Absolute temporal difference error without gradient, in reward units, ``[*B]``, in float32 or wider.
    """
    with torch.no_grad():
        return quantile_losses(quantiles, torch.zeros_like(quantiles), targets)[1]


def _prefers_table(quantiles: Tensor, targets: Tensor) -> bool:
    """Return whether the table of pairs is cheaper; it is always used on Apple's GPUs, which lack float64."""
    if quantiles.device.type == "cpu":
        return quantiles.numel() * targets.shape[-1] <= TABLE_LIMIT
    return quantiles.shape[-1] * targets.shape[-1] <= TABLE_LIMIT_OF_ELEMENTS or quantiles.device.type == "mps"


def _by_table(quantiles: Tensor, taus: Tensor, targets: Tensor, kappa: float) -> tuple[Tensor, Tensor]:
    """Return loss and absolute error from a table of all pairs."""
    shape = (*quantiles.shape, targets.shape[-1])  # [*B, N, M]
    predicted = quantiles.unsqueeze(-1).expand(shape)
    target = targets.unsqueeze(-2).expand(shape)
    # smooth L1 is the Huber loss with delta = beta, divided by beta; for beta = 0 it is L1: both cases needed here
    huber = functional.smooth_l1_loss(predicted, target, reduction="none", beta=kappa)
    taus = taus.unsqueeze(-1)
    weight = torch.where(target < predicted, 1 - taus, taus)
    loss = (weight * huber).sum(dim=(-2, -1)) / targets.shape[-1]
    with torch.no_grad():
        return loss, (target - predicted).abs_().mean(dim=(-2, -1))


def _in_closed_form(quantiles: Tensor, taus: Tensor, targets: Tensor, kappa: float) -> tuple[Tensor, Tensor]:
    """Return loss and absolute error from counts and prefix sums of the sorted targets.

    The targets fall into four groups around a quantile ``q``: below ``q - kappa``, from there to ``q``, from there to
    ``q + kappa``, and above. In each group the loss is a polynomial of ``q``; all groups sum to ``(a q + b) q + c``.
    Its gradient by ``q`` is exact, because the coefficients are constant between the bends.
    """
    num_targets = targets.shape[-1]
    order = _order(quantiles)
    quantiles = quantiles.gather(-1, order)  # the search below takes a third of the time if they ascend
    with torch.no_grad():
        taus = taus.gather(-1, order)
        # Squares of large returns would cancel: subtract the middle of the targets first, and sum in float64
        sorted_targets = _ascending(targets)
        middle = sorted_targets[..., num_targets // 2, None].double()
        sorted_targets = sorted_targets.double() - middle
    q = quantiles.double() - middle
    with torch.no_grad():
        n_low, n_mid = (torch.searchsorted(sorted_targets, bend) for bend in (q - kappa, q))
        n_up = torch.searchsorted(sorted_targets, q + kappa, right=True)
        sums = pad(sorted_targets.cumsum(dim=-1), (1, 0))  # [*B, M + 1], the first is the empty sum
        s_low, s_mid, s_up = (sums.gather(-1, number) for number in (n_low, n_mid, n_up))
        s_all = sums[..., -1:]
        over, under = taus.double(), 1 - taus.double()
        a = torch.zeros_like(q)
        b = under * n_low - over * (num_targets - n_up)
        c = over * (s_all - s_up) - under * s_low
        if kappa > 0:
            squares = pad(sorted_targets.square().cumsum(dim=-1), (1, 0))
            r_low, r_mid, r_up = (squares.gather(-1, number) for number in (n_low, n_mid, n_up))
            a = (under * (n_mid - n_low) + over * (n_up - n_mid)) / (2 * kappa)
            b -= (under * (s_mid - s_low) + over * (s_up - s_mid)) / kappa
            c += (under * (r_mid - r_low) + over * (r_up - r_mid)) / (2 * kappa)
            c -= (under * n_low + over * (num_targets - n_up)) * (kappa / 2)
        error = q * (2 * n_mid - num_targets) + (s_all - 2 * s_mid)
        error = error.mean(dim=-1).clamp(min=0) / num_targets  # rounding must not make a negative priority
    loss = ((a * q + b) * q + c).sum(dim=-1) / num_targets
    return loss.to(quantiles.dtype), error.to(quantiles.dtype)


def _order(values: Tensor) -> Tensor:
    """Return the indices that sort the last dimension."""
    array = _as_array(values)
    return values.argsort(dim=-1) if array is None else torch.from_numpy(array.argsort(axis=-1))


def _ascending(values: Tensor) -> Tensor:
    """Return values, sorted along the last dimension."""
    array = _as_array(values)
    return values.contiguous().sort(dim=-1).values if array is None else torch.from_numpy(np.sort(array, axis=-1))


def _as_array(values: Tensor) -> NDArray[Any] | None:
    """Return values for numpy, which sorts 5 to 20 times as fast as torch on a CPU; None where numpy has no access."""
    if values.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    try:
        return values.detach().contiguous().numpy()
    except RuntimeError:  # under torch.vmap and torch.func
        return None
