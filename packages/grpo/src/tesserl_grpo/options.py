"""Validate the options of the loss."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

PolicyLossKind = Literal["clip", "reinforce", "cispo", "sapo"]
ImportanceLevel = Literal["step", "trajectory", "trajectory_step"]
Reduction = Literal["grpo", "dapo", "dr_grpo", "none"]
KLKind = Literal["k1", "k2", "k3"]
LossKLKind = Literal["k2", "k3", "exact"]
POLICY_LOSS_KINDS, IMPORTANCE_LEVELS = get_args(PolicyLossKind), get_args(ImportanceLevel)
REDUCTIONS, KL_KINDS = get_args(Reduction), get_args(KLKind)


def check_choice(name: str, got: object, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not one of the choices."""
    if got not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {got!r}")


def check_loss_options(
    kind: str,
    clip_epsilon: float | Tensor,
    clip_epsilon_high: float | Tensor | None,
    delta: float | None,
    importance_level: str,
    top_entropy_fraction: float,
    temperatures: tuple[float, float] = (1.0, 1.05),
    off_policy_threshold: float | None = None,
) -> None:
    """Refuse options of the loss that are out of range; skip scalar tensors, which would wait for a GPU."""
    check_choice("kind", kind, POLICY_LOSS_KINDS)
    check_choice("importance_level", importance_level, IMPORTANCE_LEVELS)
    if min(temperatures) <= 0:
        raise ValueError(f"temperatures must be above 0, got {temperatures}; SAPO has (1.0, 1.05)")
    if off_policy_threshold is not None and off_policy_threshold <= 0:
        raise ValueError(f"off_policy_threshold must be None or above 0, in nats, got {off_policy_threshold}")
    if isinstance(clip_epsilon, Tensor) or isinstance(clip_epsilon_high, Tensor):
        return
    if clip_epsilon < 0:
        raise ValueError(f"clip_epsilon must be at least 0, got {clip_epsilon}; 0.2 is usual")
    if clip_epsilon_high is not None and clip_epsilon_high < 0:
        raise ValueError(f"clip_epsilon_high must be None or at least 0, got {clip_epsilon_high}; DAPO has 0.28")
    if kind == "cispo" and clip_epsilon_high == 0:
        raise ValueError("clip_epsilon_high of cispo must be above 0, got 0; it is the largest ratio, such as 5")
    if not 0 < top_entropy_fraction <= 1:
        raise ValueError(f"top_entropy_fraction must be in (0, 1], got {top_entropy_fraction}; 1 keeps every step")
    if delta is None:
        return
    if kind != "clip":
        raise ValueError(f"delta must be None for kind {kind}, got {delta}; it bounds the ratio of kind clip")
    upper = 1 + (clip_epsilon if clip_epsilon_high is None else clip_epsilon_high)
    if delta <= upper:
        raise ValueError(f"delta must be above the upper clip {upper:g}, got {delta}; it is a ratio, such as 4")


def check_reduction(reduction: str, max_length: int | None) -> None:
    """Refuse a reduction that does not exist or lacks its constant.

    Args:
        reduction: one of ``Reduction``.
        max_length: at least 1 for ``dr_grpo``.

    Raises:
        ValueError: ``reduction`` is unknown or ``max_length`` is missing or below 1.
    """
    check_choice("reduction", reduction, REDUCTIONS)
    if reduction == "dr_grpo" and (max_length is None or max_length < 1):
        raise ValueError(
            f"reduction dr_grpo needs max_length of at least 1, got {max_length}; give the steps of the longest "
            "trajectory that the task allows"
        )


def check_kl_options(kl_coef: float, kl_kind: str, *, has_reference: bool, importance_weighted: bool = False) -> None:
    """Refuse a divergence that cannot be a loss."""
    if kl_coef < 0:
        raise ValueError(f"kl_coef must be at least 0, got {kl_coef}")
    if kl_kind not in get_args(LossKLKind):
        raise ValueError(
            f"kl_kind of a loss must be one of {', '.join(get_args(LossKLKind))}, got {kl_kind!r}; the expectation of "
            "the gradient of k1 is zero, k2 has the gradient that k1 is meant to have"
        )
    if kl_kind == "exact" and kl_coef and not has_reference:
        raise ValueError("kl_kind exact needs reference=ReferencePolicy(actor_network), got None")
    if kl_kind == "exact" and importance_weighted:
        raise ValueError("kl_importance_weighted must be False for kl_kind exact, got True; it estimates nothing")


def check_shapes(log_probs: Tensor, **tensors: Tensor | None) -> None:
    """Refuse tensors that would broadcast silently, such as advantages ``[P]`` or ``[P, T, 1]``."""
    for name, tensor in tensors.items():
        if tensor is not None and tensor.shape != log_probs.shape:
            raise ValueError(
                f"{name} must have the shape of log_probs {tuple(log_probs.shape)}, got {tuple(tensor.shape)}; "
                "one value for each step (expand what belongs to a trajectory, drop singleton dimensions)"
            )
