"""A scripted teacher that labels pairs with known kinds of errors (B-Pref, Lee et al. 2021, arXiv:2111.03026)."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

TeacherKind = Literal["oracle", "noisy", "myopic", "skip", "equal", "mistake"]
_PRESETS: dict[str, dict[str, float]] = {
    "oracle": {},
    "noisy": {"beta": 10.0},
    "myopic": {"discount": 0.9},
    "skip": {"skip": 0.1},
    "equal": {"equal": 0.1},
    "mistake": {"mistake": 0.1},
}


class TeacherLabels(NamedTuple):
    """Labels of a teacher for pairs, ``[P]`` each."""

    label: Tensor  # 1 if the second segment is preferred, 0 if the first is, 0.5 if they are equal
    kept: Tensor  # bool, false if the teacher skips the pair
    probability: Tensor  # of preferring the second, before mistakes and ties


class ScriptedTeacher:
    """Label pairs by their rewards, like B-Pref's simulated teachers.

    The steps are, in this order: pairs of two bad segments are skipped; discounted sums, in which the last step has the
    largest weight, are compared, either exactly or with probability ``sigmoid(beta (R2 - R1))`` of preferring the
    second; some labels are flipped by mistake; pairs of (nearly) equal undiscounted sums become ties.

    B-Pref's thresholds are fractions of a mean return, so they have no effect if returns are negative. Here ``beta``,
    ``skip`` and ``equal`` are relative to a range of segment sums, so that scaling or shifting all sums changes no
    label. The range is ``bounds`` or, without it, the 5 and 95 % quantiles of the given segments. ``bounds=(0, 1)``
    gives B-Pref's arithmetic.

    Args:
        beta: inverse temperature, in units of one divided by the range; None always prefers the larger sum.
        discount: weight of a step relative to the next step, in [0, 1]; the last step has weight 1.
        skip: skip a pair unless one of its sums is above this fraction of the range; None skips none.
        equal: treat sums that differ by less than this fraction of the range as equal, at least 0; with 0, only equal
            sums.
        mistake: probability of a flipped label, in [0, 1].
        bounds: low and high end of the range of segment sums, in reward units; None estimates it by quantiles.

    Raises:
        ValueError: an option is out of its range.
    """

    def __init__(
        self,
        *,
        beta: float | None = None,
        discount: float = 1.0,
        skip: float | None = None,
        equal: float = 0.0,
        mistake: float = 0.0,
        bounds: tuple[float, float] | None = None,
    ) -> None:
        rules: dict[str, tuple[bool, Any]] = {
            "beta must be above 0, or None for no noise": (beta is None or beta > 0, beta),
            "discount must be in [0, 1]": (0 <= discount <= 1, discount),
            "equal must be at least 0": (equal >= 0, equal),
            "mistake must be in [0, 1]": (0 <= mistake <= 1, mistake),
            "bounds must be a low end and a higher one": (bounds is None or bounds[0] < bounds[1], bounds),
        }
        for rule, (holds, got) in rules.items():
            if not holds:
                raise ValueError(f"{rule}, got {got}")
        self.beta = beta
        self.discount = discount
        self.skip = skip
        self.equal = equal
        self.mistake = mistake
        self.bounds = bounds

    @classmethod
    def preset(cls, kind: TeacherKind, **options: Any) -> ScriptedTeacher:
        """Make one of B-Pref's teachers.

        Args:
            kind: ``"oracle"``, ``"noisy"`` (beta 10: a difference of a tenth of the range is seen 73 % of the time),
                ``"myopic"`` (discount 0.9), ``"skip"``, ``"equal"`` or ``"mistake"`` (0.1 each).
            **options: arguments of the constructor that replace the preset's.

        Returns:
            The teacher.

        Raises:
            ValueError: ``kind`` is unknown.
        """
        if kind not in _PRESETS:
            raise ValueError(f"teacher must be one of {', '.join(_PRESETS)}, got {kind!r}")
        return cls(**{**_PRESETS[kind], **options})

    def label(
        self,
        reward_1: Tensor,
        reward_2: Tensor,
        mask_1: Tensor | None = None,
        mask_2: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> TeacherLabels:
        """Label pairs of segments.

        Args:
            reward_1: rewards of the first segments, ``[P, T]``.
            reward_2: rewards of the second segments, ``[P, T]``; ``T`` may differ.
            mask_1: bool ``[P, T]``, true on valid steps, which come before padding; None for all.
            mask_2: the same for the second segments.
            generator: source of randomness; default: torch's global one.

        Returns:
            Labels, ``[P]``.

        Raises:
            ValueError: shapes differ.
        """
        if reward_1.shape[:-1] != reward_2.shape[:-1]:
            raise ValueError(
                f"first and second segments must be equally many, got {tuple(reward_1.shape)}, {tuple(reward_2.shape)}"
            )
        sum_1, sum_2 = self._sum(reward_1, mask_1, 1.0), self._sum(reward_2, mask_2, 1.0)
        low, high = self._range(sum_1, sum_2)
        kept = torch.ones_like(sum_1, dtype=torch.bool)
        if self.skip is not None:
            kept = torch.maximum(sum_1, sum_2) > low + self.skip * (high - low)
        gap = self._sum(reward_2, mask_2, self.discount) - self._sum(reward_1, mask_1, self.discount)
        certain = (gap > 0).to(gap.dtype)
        probability = certain if self.beta is None else torch.sigmoid(self.beta / (high - low) * gap)
        draw, error = torch.rand((2, *gap.shape), generator=generator).to(gap)
        label = (draw < probability) ^ (error < self.mistake)
        difference = (sum_2 - sum_1).abs()
        is_tie = (difference == 0) | (difference < self.equal * (high - low))
        return TeacherLabels(torch.where(is_tie, 0.5, label.to(gap.dtype)), kept, probability)

    @staticmethod
    def _sum(reward: Tensor, mask: Tensor | None, discount: float) -> Tensor:
        """Return sums with weight 1 for the last valid step and, before it, ``discount`` times the next weight."""
        if mask is None:
            mask = torch.ones_like(reward, dtype=torch.bool)
        steps_left = mask.sum(dim=-1, keepdim=True) - mask.cumsum(dim=-1)
        return torch.where(mask, reward * discount ** steps_left.to(reward.dtype), 0.0).sum(dim=-1)

    def _range(self, sum_1: Tensor, sum_2: Tensor) -> tuple[float, float]:
        """Return the range to which thresholds are relative."""
        if self.bounds is not None:
            return self.bounds
        if not sum_1.numel():  # without pairs there are no quantiles
            return 0.0, 1.0
        # linear interpolation like torch.quantile, which supports at most 2^24 values
        values = torch.cat([sum_1, sum_2]).double().sort().values
        place = torch.tensor([0.05, 0.95]).double() * (len(values) - 1)
        below, above = values[place.floor().long()], values[place.ceil().long()]
        low, high = torch.lerp(below, above, place - place.floor()).tolist()
        return (low, high) if high > low else (low, low + 1.0)
