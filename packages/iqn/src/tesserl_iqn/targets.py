"""Evaluate networks at sampled fractions, and make targets from the evaluations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tesserl_iqn.fractions import check_tau_sampling, sample_taus
from tesserl_iqn.functional import munchausen_target, quantile_td_target
from tesserl_policy import at_least_float32, mask_actions

if TYPE_CHECKING:
    from tesserl_iqn.batch import Batch
    from tesserl_iqn.loss import IQNLoss
    from tesserl_iqn.network import QuantileNetwork


@dataclass(slots=True)
class Evaluation:
    """Quantiles of a network at fractions of each observation."""

    features: Tensor  # [*B, F]
    quantiles: Tensor  # [*B, (N,) K, A], in float32 or wider
    taus: Tensor  # [*B, (N,) K]


Targets = Callable[[Evaluation], Tensor]
"""Make targets ``[*B, (N,) M]`` from the online network's evaluation of the present observations."""


def evaluate(loss: IQNLoss, network: QuantileNetwork, observation: Sequence[Tensor], num_taus: int) -> Evaluation:
    """Run a network on observations ``[*B, ...]``, at ``num_taus`` fractions each or at its fixed fractions."""
    features = network.features(*observation)
    fixed = network.num_fixed_quantiles
    number, kind = (num_taus, loss.tau_sampling) if fixed is None else (fixed, "midpoints")
    taus = sample_taus(features.shape[:-1], number, kind=kind, device=features.device, dtype=torch.float32)
    quantiles = _per_block(network, network.quantiles(features, taus if fixed is None else None))
    taus = taus if network.num_blocks is None else taus.unsqueeze(-2).expand(quantiles.shape[:-1])
    return Evaluation(features, quantiles, taus)


def prepare_targets(loss: IQNLoss, batch: Batch, following: Evaluation) -> Targets:
    """Run the target network; return a function that runs the other passes and makes the targets."""
    online, target = loss.value_network, loss.target_value_network
    reward, discount, quantiles = batch.reward, batch.discount, following.quantiles
    if loss.munchausen_alpha is not None:
        return _prepare_munchausen(loss, batch, following, loss.munchausen_alpha)
    if not loss.use_double:
        greedy = _allowed(_value(loss, target, following), batch.next_action_mask).argmax(dim=-1)
        return lambda _: quantile_td_target(reward, discount, quantiles, greedy)

    def double_q(_: Evaluation) -> Tensor:
        value = _fresh_value(loss, online, online.features(*batch.next_observation))
        greedy = _allowed(value, batch.next_action_mask).argmax(dim=-1)
        return quantile_td_target(reward, discount, quantiles, greedy)

    return double_q


def _prepare_munchausen(loss: IQNLoss, batch: Batch, following: Evaluation, alpha: Tensor | float) -> Targets:
    target = loss.target_value_network

    def munchausen(value: Tensor) -> Tensor:
        return munchausen_target(
            batch.reward,
            batch.discount,
            batch.action,
            _allowed(value, batch.action_mask),
            _allowed(next_value, batch.next_action_mask),
            following.quantiles,
            alpha=alpha,
            temperature=loss.munchausen_temperature,
            clip=loss.munchausen_clip,
        )

    if loss.munchausen_log_policy == "online":
        next_value = _value(loss, target, following)
        return lambda present: munchausen(_value(loss, loss.value_network, present))
    value = _fresh_value(loss, target, target.features(*batch.observation))
    next_value = _value(loss, target, following)
    return lambda _: munchausen(value)


def _allowed(value: Tensor, mask: Tensor | None) -> Tensor:
    """Return action values ``[*B, (N,) A]`` in which forbidden actions are never the best."""
    return value if mask is None else mask_actions(value, mask)


def _value(loss: IQNLoss, network: QuantileNetwork, evaluation: Evaluation) -> Tensor:
    """Return action values of evaluated observations, ``[*B, (N,) A]``."""
    if network.num_fixed_quantiles is not None:
        return evaluation.quantiles.mean(dim=-2)
    return _fresh_value(loss, network, evaluation.features)


def _fresh_value(loss: IQNLoss, network: QuantileNetwork, features: Tensor) -> Tensor:
    """Return action values, ``[*B, (N,) A]``: means over a new row of fractions, the same for the whole batch."""
    if network.num_fixed_quantiles is not None:
        return network.action_value(features)
    taus = sample_taus((), loss.num_policy_taus, kind=loss.tau_sampling, device=features.device, dtype=torch.float32)
    return network.action_value(features, taus)


def _per_block(network: QuantileNetwork, quantiles: Tensor) -> Tensor:
    """Move the axis of fractions behind that of blocks, ``[*B, (N,) K, A]``, in float32 or wider."""
    if network.num_blocks is not None:
        quantiles = quantiles.transpose(-3, -2)
    return at_least_float32(quantiles)


def check_options(
    loss: IQNLoss,
    discount: float,
    munchausen_alpha: float | None,
    munchausen_temperature: float,
    munchausen_clip: float,
) -> None:
    """Refuse an option that is out of its range."""
    for num_taus in (loss.num_taus, loss.num_target_taus, loss.num_policy_taus):
        check_tau_sampling(loss.tau_sampling, num_taus)
    alpha, ratio, decay = munchausen_alpha, loss.self_loss_clamp_ratio, loss.self_loss_decay
    log_policy, action_space, reduction = loss.munchausen_log_policy, loss.action_space, loss.reduction
    rules: list[tuple[bool, str, object]] = [
        (0 <= discount <= 1, "discount must be in [0, 1]", discount),
        (loss.kappa >= 0, "kappa must be at least 0", loss.kappa),
        (alpha is None or 0 <= alpha <= 1, "munchausen_alpha must be None or in [0, 1]", alpha),
        (munchausen_temperature > 0, "munchausen_temperature must be above 0", munchausen_temperature),
        (munchausen_clip <= 0, "munchausen_clip must be at most 0", munchausen_clip),
        (log_policy in ("target", "online"), "munchausen_log_policy must be target or online", log_policy),
        (action_space in ("categorical", "one_hot"), "action_space must be categorical or one_hot", action_space),
        (reduction in ("mean", "sum", "none"), "reduction must be mean, sum or none", reduction),
        (loss.tau_sampling != "midpoints", "tau_sampling of the loss must draw taus", loss.tau_sampling),
        (ratio is None or ratio >= 1, "self_loss_clamp_ratio must be None or at least 1", ratio),
        (0 <= decay < 1, "self_loss_decay must be in [0, 1)", decay),
    ]
    for holds, rule, got in rules:
        if not holds:
            raise ValueError(f"{rule}, got {got!r}")
