"""Allowed values of the options of the loss."""

from __future__ import annotations

from typing import Any

from tesserl_iqn.fractions import check_tau_sampling


def check_options(loss: Any) -> None:
    """Refuse what is out of range.

    Args:
        loss: an ``IQNLoss`` whose options are set.

    Raises:
        ValueError: an option is out of its range; the message names it.
    """
    for num_taus in (loss.num_taus, loss.num_target_taus, loss.num_policy_taus):
        check_tau_sampling(loss.tau_sampling, num_taus)
    alpha, temperature = loss.munchausen_alpha, loss.munchausen_temperature
    ratio = loss.self_loss_clamp_ratio
    rules = {
        "discount must be in [0, 1]": (0 <= loss.discount <= 1, loss.discount),
        "kappa must be at least 0": (loss.kappa >= 0, loss.kappa),
        "munchausen_alpha must be None or in [0, 1]": (alpha is None or 0 <= alpha <= 1, alpha),
        "munchausen_temperature must be above 0": (temperature > 0, temperature),
        "munchausen_clip must be at most 0": (loss.munchausen_clip <= 0, loss.munchausen_clip),
        "munchausen_log_policy must be target or online": (
            loss.munchausen_log_policy in ("target", "online"),
            loss.munchausen_log_policy,
        ),
        "action_space must be categorical or one_hot": (
            loss.action_space in ("categorical", "one_hot"),
            loss.action_space,
        ),
        "reduction must be mean, sum or none": (loss.reduction in ("mean", "sum", "none"), loss.reduction),
        "tau_sampling of the loss must draw taus": (loss.tau_sampling != "midpoints", loss.tau_sampling),
        "self_loss_clamp_ratio must be None or at least 1": (ratio is None or ratio >= 1, ratio),
        "self_loss_decay must be in [0, 1)": (0 <= loss.self_loss_decay < 1, loss.self_loss_decay),
    }
    for rule, (holds, got) in rules.items():
        if not holds:
            raise ValueError(f"{rule}, got {got!r}")
