"""``dpo:`` and ``cpl:``, policies from preferences."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tesserl_configs.base import Block, Count, Fraction, FractionAboveZero, Positive, Steps
from tesserl_configs.policy import (
    COMPILE,
    DISTRIBUTION,
    MAX_GRAD_NORM,
    ORTHOGONAL_INIT,
    PRECISION,
    Distribution,
    Precision,
)
from tesserl_configs.preference_losses import PairLoss, SigmoidLoss
from tesserl_configs.reference import AnyReference, FrozenReference
from tesserl_configs.schedules import ScheduledNonNegative, ScheduledPositive


class PretrainingConfig(Block):
    """Behaviour cloning before the first step of the run; its result is the frozen reference."""

    num_updates: Steps = Field(
        default=2_000, description="Number of gradient updates, >= 1 (CPL's code: 200,000 of 500,000)."
    )
    data: Literal["chosen", "all"] = Field(
        default="all", description="Segments to imitate: chosen, the preferred ones only, or all (CPL's code: all)."
    )


class ValueConfig(Block):
    """A value that learns the returns of segments beside the policy, for a later run that starts with both."""

    coef: Positive = Field(default=0.1, description="Weight of the loss of the value, > 0 (0.1, as a start).")
    discount: Fraction = Field(default=0.99, description="Discount of one step in the returns of segments, in [0, 1].")


class PreferenceOptions(Block):
    """Options of every algorithm that learns from pairs."""

    discount: Fraction = Field(
        default=1.0,
        description="Weight of a step divided by that of the step before, in [0, 1]; 1: equal weights (papers: 1).",
    )
    entropy_coef: ScheduledNonNegative = Field(
        default=0.0, description="Weight of the entropy bonus, >= 0; a number or a schedule."
    )
    value: ValueConfig | None = Field(default=None, description="Value that is learned beside the policy; null: none.")
    pretraining: PretrainingConfig | None = Field(
        default=None, description="Behaviour cloning on the stored pairs before training; null: none."
    )
    batch_size: Count = Field(
        default=64, description="Number of pairs in each gradient update, >= 1 (DPO: 64; CPL: 96)."
    )
    max_grad_norm: Positive | None = Field(default=1.0, description=f"{MAX_GRAD_NORM} (TRL: 1).")
    distribution: Distribution = DISTRIBUTION
    orthogonal_init: bool = ORTHOGONAL_INIT
    precision: Precision = PRECISION
    compile: bool = COMPILE


class DPOConfig(PreferenceOptions):
    """Options of direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290) and its family."""

    loss: PairLoss = Field(default_factory=SigmoidLoss, description="Loss of a pair.")
    beta: ScheduledPositive = Field(
        default=0.1,
        description=(
            "Strength of the pull towards the reference, > 0; a number or a schedule. Take about 0.1 (DPO) for sums "
            "over tens of steps, 1 or more for averages."
        ),
    )
    reference: AnyReference = Field(
        default_factory=FrozenReference,
        description="Reference policy; none: treat its log-probabilities as equal (TRL: reference_free).",
    )
    length_normalize: bool | None = Field(
        default=None,
        description=(
            "Average log-probabilities over the steps of a segment instead of summing them; null: average for ipo, "
            "sigmoid_norm, simpo, orpo and sft, sum for the others (ipo's paper: sums)."
        ),
    )
    ld_alpha: Fraction = Field(
        default=1.0,
        description=(
            "Weight of the steps of the longer segment of a pair after the end of the shorter one, in [0, 1]; for "
            "sums only (LD-DPO, Liu et al. 2024, arXiv:2409.06411)."
        ),
    )
    use_weighting: bool = Field(
        default=False,
        description=(
            "Weight each pair by how likely its actions are under the current policy, at most 1 (WPO, Zhou et al. "
            "2024, arXiv:2406.11827)."
        ),
    )
    nll_coef: ScheduledNonNegative | None = Field(
        default=None,
        description=(
            "Weight of behaviour cloning of the chosen segments, >= 0; a number or a schedule; null: 1 for orpo "
            "(paper), 0 for the others."
        ),
    )


class CPLConfig(PreferenceOptions):
    """Options of contrastive preference learning (Hejna et al. 2024, arXiv:2310.13639); defaults of its code."""

    alpha: Positive = Field(
        default=0.1, description="Temperature, in reward units, > 0: advantages are alpha times log-probability."
    )
    bias: FractionAboveZero = Field(
        default=0.5, description="Weight of the rejected segment, in (0, 1]; 1: no bias (CPL-BC: 1)."
    )
    comparison: Literal["pairs", "ranking"] = Field(
        default="pairs",
        description=(
            "pairs: learn from the pairs as they are; ranking: learn from all pairs in a batch, ordered by score."
        ),
    )
    length_normalize: bool = Field(
        default=False,
        description="Average over the steps of a segment instead of summing, for segments of unequal length.",
    )
    bc_coef: ScheduledNonNegative = Field(
        default=0.0,
        description="Weight of behaviour cloning of all segments, >= 0; a number or a schedule (CPL-BC: 1).",
    )
