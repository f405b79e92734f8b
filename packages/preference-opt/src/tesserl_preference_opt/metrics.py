"""Metrics of a preference loss, under TRL's names, and the mean of them over held-out pairs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.objectives import LossModule

from tesserl_preference_opt.policy import evaluation_mode

METRICS = (
    "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected",
    "entropy", "nll_loss",
)  # fmt: skip


@torch.no_grad()
def preference_metrics(rewards: Tensor, log_probs: Tensor, label: Tensor | None = None) -> dict[str, Tensor]:
    """Compute the means of rewards, log-probs and accuracy over pairs.

    Args:
        rewards: implicit rewards of chosen and of rejected segments, beta times the log-ratio, ``[2, P]``.
        log_probs: log-probs of chosen and of rejected segments, ``[2, P]``.
        label: probability that the chosen one is better, ``[P]``; None for 1. Ties (0.5) do not count for the accuracy,
            which is NaN if all are ties.

    Returns:
        Scalars under TRL's names. The accuracy is the share of pairs whose chosen segment has the larger reward.
    """
    right = rewards[0] > rewards[1]
    decided = right.numel() if label is None else (label != 0.5).sum()
    accuracy = (right if label is None else right & (label != 0.5)).sum() / decided
    chosen, rejected, chosen_log_probs, rejected_log_probs = torch.cat([rewards, log_probs]).mean(dim=1).unbind()
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/accuracies": accuracy,
        "rewards/margins": chosen - rejected,
        "logps/chosen": chosen_log_probs,
        "logps/rejected": rejected_log_probs,
    }


@torch.no_grad()
def evaluate_pairs(loss_module: LossModule, batches: Iterable[TensorDictBase]) -> dict[str, float]:
    """Compute the means of a loss and its metrics over held-out pairs, in evaluation mode.

    ``rewards/accuracies`` is the held-out accuracy of the implicit reward: the share of pairs that it orders as their
    labels do. It measures the model of preferences, not the policy: measure the return too.

    Args:
        loss_module: a `PreferenceLoss` or `CPLLoss`; its modes are restored afterwards.
        batches: pairs, such as ``held_out.minibatches(256, shuffle=False)``.

    Returns:
        Means weighted by the number of pairs in each batch; the accuracy is weighted by the pairs that are no ties.

    Raises:
        ValueError: there are no batches.
    """
    sums: dict[str, float] = {}
    weights: dict[str, float] = {}
    with evaluation_mode(loss_module):
        for batch in batches:
            label = batch.get("label", None)
            decided = len(batch) if label is None else int((label != 0.5).sum())
            for name, value in loss_module(batch).items():
                weight = decided if name == "rewards/accuracies" else len(batch)
                if weight:
                    sums[name] = sums.get(name, 0.0) + weight * float(value)
                    weights[name] = weights.get(name, 0.0) + weight
    if not weights:
        raise ValueError("there must be at least one batch of pairs, got none; hold out more pairs")
    return {name: total / weights[name] for name, total in sums.items()}
