"""The formulas of proximal policy optimisation, as pure functions of tensors.

Shapes: ``*B`` any batch shape; log-probabilities are those of whole actions.

Sources: PPO, Schulman et al. 2017 (arXiv:1707.06347); dual clip, Ye et al. 2020 (arXiv:1912.09729).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from tesserl_policy import clipped_ratio, log_ratio_bounds

ValueLossKind = Literal["l2", "smooth_l1"]
VALUE_LOSS_KINDS = get_args(ValueLossKind)


def clipped_surrogate_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    *,
    clip_epsilon: float | Tensor = 0.2,
    clip_epsilon_high: float | Tensor | None = None,
    dual_clip: float | None = None,
) -> Tensor:
    """Return the negative clipped surrogate objective (PPO, equation 7), with optional asymmetric and dual clip.

    With ``r = exp(log_probs - old_log_probs)``: ``-min(r A, clip(r, 1 - low, 1 + high) A)``; with a dual clip ``c`` and
    where ``A < 0``, ``-max(min(r A, clip(r, ...) A), c A)``. In other words: where the advantage is positive, the ratio
    is at most ``1 + high``. Where it is negative, the ratio is at least ``1 - low``, and with a dual clip at most ``c``
    (`tesserl_policy.clipped_ratio`).

    Args:
        log_probs: log-probabilities of the trained policy, ``[*B]``.
        old_log_probs: log-probabilities of the policy that acted, ``[*B]``; no gradient.
        advantages: in reward units, ``[*B]``; no gradient.
        clip_epsilon: how far the ratio may fall below 1, in (0, 1), and rise above 1 if ``clip_epsilon_high`` is None.
            A scalar tensor is not checked, to avoid a GPU synchronisation.
        clip_epsilon_high: how far the ratio may rise above 1, above 0; None for ``clip_epsilon``. DAPO
            (arXiv:2503.14476) uses a larger value than ``clip_epsilon``.
        dual_clip: largest ratio where the advantage is negative, above 1; None for no bound.

    Returns:
        Loss of each element, in units of the advantage, ``[*B]``.

    Raises:
        ValueError: the shapes differ or an option is out of its range.
    """
    if not log_probs.shape == old_log_probs.shape == advantages.shape:
        raise ValueError(
            f"log_probs, old_log_probs and advantages must have one shape, got {tuple(log_probs.shape)}, "
            f"{tuple(old_log_probs.shape)} and {tuple(advantages.shape)}; drop singleton dimensions"
        )
    check_clip(clip_epsilon, clip_epsilon_high, dual_clip)
    low, high = log_ratio_bounds(clip_epsilon, clip_epsilon_high)
    return clipped_ratio(log_probs - old_log_probs, advantages, low, high, dual_clip=dual_clip) * -advantages


def check_clip(clip_epsilon: float | Tensor, clip_epsilon_high: float | Tensor | None, dual_clip: float | None) -> None:
    """Reject bounds of the ratio that are out of range."""
    if not isinstance(clip_epsilon, Tensor) and not 0 <= clip_epsilon < 1:
        raise ValueError(f"clip_epsilon must be in [0, 1), got {clip_epsilon}; 0.2 is usual")
    if clip_epsilon_high is not None and not isinstance(clip_epsilon_high, Tensor) and not clip_epsilon_high >= 0:
        raise ValueError(f"clip_epsilon_high must be at least 0, got {clip_epsilon_high}; None for clip_epsilon")
    if dual_clip is not None and not dual_clip > 1:
        raise ValueError(f"dual_clip must be above 1, got {dual_clip}; 3 is the paper's, None for none")


def clipped_value_loss(
    value: Tensor, old_value: Tensor | None, target: Tensor, *, clip: float | None = None, kind: ValueLossKind = "l2"
) -> Tensor:
    """Return the larger of the clipped and the unclipped loss of a value relative to its target.

    ``max(l(V), l(V_old + clip(V - V_old, -c, c)))`` with ``l`` the squared error (without one half) or the Huber loss
    with threshold 1, as in OpenAI Baselines' PPO; without ``clip`` only ``l(V)``.

    Args:
        value: predicted value, in reward units, ``[*B]``.
        old_value: value predicted when acting, ``[*B]``; only used with ``clip``, otherwise it may be None.
        target: return to predict, ``[*B]``; no gradient.
        clip: how far the value may move from the old value, in reward units, above 0; None for no limit.
        kind: ``"l2"`` or ``"smooth_l1"``.

    Returns:
        Loss of each element, ``[*B]``.

    Raises:
        ValueError: the shapes differ, an option is out of its range, or the old value is missing.
    """
    if value.shape != target.shape:
        raise ValueError(f"value and target must have one shape, got {tuple(value.shape)} and {tuple(target.shape)}")
    distance = _distance(value, target, kind)
    if clip is None:
        return distance
    if not clip > 0:
        raise ValueError(f"clip must be above 0, got {clip}; None for no clip")
    if old_value is None or old_value.shape != value.shape:
        got = None if old_value is None else tuple(old_value.shape)
        raise ValueError(f"old_value must have the shape of value {tuple(value.shape)} where it is clipped, got {got}")
    clipped = old_value + (value - old_value).clamp(-clip, clip)
    return torch.maximum(distance, _distance(clipped, target, kind))


def normalized(advantages: Tensor) -> Tensor:
    """Return advantages with mean 0 and sample standard deviation 1 (divided by n - 1), like CleanRL.

    Args:
        advantages: any shape; a single advantage is returned unchanged, because it has no standard deviation.

    Returns:
        ``(A - mean) / (std + 1e-8)``, in the shape of ``advantages``.
    """
    if advantages.numel() < 2:
        return advantages
    std, mean = torch.std_mean(advantages)
    return (advantages - mean) / (std + 1e-8)


def _distance(value: Tensor, target: Tensor, kind: ValueLossKind) -> Tensor:
    if kind == "l2":
        return functional.mse_loss(value, target, reduction="none")
    if kind == "smooth_l1":
        return functional.smooth_l1_loss(value, target, reduction="none")
    raise ValueError(f"kind of the value loss must be one of {', '.join(VALUE_LOSS_KINDS)}, got {kind!r}")
