"""The formulas of proximal policy optimisation: tensors in, tensors out.

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
    """Negative clipped surrogate objective (PPO, equation 7), with asymmetric and dual clip.

    With ``r = exp(log_probs - old_log_probs)``: ``-min(r A, clip(r, 1 - low, 1 + high) A)``; with a dual clip ``c``
    and where ``A < 0``, ``-max(min(r A, clip(r, ...) A), c A)``. In other words the ratio has an upper bound where the
    advantage is positive, ``1 + high``, and a lower one where it is negative, ``1 - low``, with a dual clip an upper
    one too, ``c`` (`tesserl_policy.clipped_ratio`).

    Args:
        log_probs: of the policy in training, ``[*B]``.
        old_log_probs: of the policy that acted, ``[*B]``; no gradient.
        advantages: ``[*B]``; no gradient.
        clip_epsilon: how far the ratio may fall below 1, and rise above it unless the next says so, in (0, 1); a scalar
            tensor is not checked, because that would wait for a GPU.
        clip_epsilon_high: how far the ratio may rise above 1, above 0; None for ``clip_epsilon`` (DAPO,
            arXiv:2503.14476, takes a larger one).
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
    """Refuse bounds of the ratio that are out of range."""
    if not isinstance(clip_epsilon, Tensor) and not 0 <= clip_epsilon < 1:
        raise ValueError(f"clip_epsilon must be in [0, 1), got {clip_epsilon}; 0.2 is usual")
    if clip_epsilon_high is not None and not isinstance(clip_epsilon_high, Tensor) and not clip_epsilon_high >= 0:
        raise ValueError(f"clip_epsilon_high must be at least 0, got {clip_epsilon_high}; None for clip_epsilon")
    if dual_clip is not None and not dual_clip > 1:
        raise ValueError(f"dual_clip must be above 1, got {dual_clip}; 3 is the paper's, None for none")


def clipped_value_loss(
    value: Tensor, old_value: Tensor | None, target: Tensor, *, clip: float | None = None, kind: ValueLossKind = "l2"
) -> Tensor:
    """Distance of the value to its target, the larger of the clipped and the unclipped one.

    ``max(l(V), l(V_old + clip(V - V_old, -c, c)))`` with ``l`` the squared error (without one half) or the Huber loss
    with threshold 1, as in OpenAI Baselines' PPO; without ``clip`` only ``l(V)``.

    Args:
        value: predicted value, in reward units, ``[*B]``.
        old_value: value predicted when acting, ``[*B]``; without ``clip`` unused, may be None.
        target: return to predict, ``[*B]``; no gradient.
        clip: how far the value may move, in reward units, above 0; None for as far as it likes.
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
    """Advantages with mean 0 and standard deviation 1 (of a sample: divided by n - 1), as CleanRL's.

    Args:
        advantages: any shape; a single one, which has no deviation, is returned as it is.

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
