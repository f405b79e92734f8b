"""``grpo:``, group-relative policy optimisation (Shao et al. 2024, DeepSeekMath, arXiv:2402.03300), for control.

Where a key names TRL, its default is that of TRL's ``GRPOTrainer``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tesserl_configs.base import (
    AboveOne,
    Block,
    Count,
    Fraction,
    FractionAboveZero,
    GroupSize,
    Positive,
    Steps,
)
from tesserl_configs.policy import (
    COMPILE,
    CUDA_GRAPH,
    DISTRIBUTION,
    MAX_GRAD_NORM,
    ORTHOGONAL_INIT,
    PRECISION,
    Distribution,
    Precision,
)
from tesserl_configs.reference import FrozenReference, Reference
from tesserl_configs.schedules import ScheduledFractionBelowOne, ScheduledNonNegative, ScheduledRate
from tesserl_configs.starts import RepeatedStarts, Starts

# --- advantages --------------------------------------------------------------------------------------------------

_SCALE = (
    "Deviation that advantages are divided by: none (Dr. GRPO, arXiv:2503.20783), that of their group (DeepSeekMath) "
    "or of the batch (REINFORCE++, arXiv:2501.03262)."
)


class TrajectoryAdvantages(Block):
    """One advantage for all steps of a trajectory: its return against those of its group (DeepSeekMath)."""

    kind: Literal["trajectory"] = "trajectory"
    baseline: Literal["mean", "leave_one_out"] = Field(
        default="mean",
        description="Mean return of the group (DeepSeekMath), or of the others in it (RLOO, arXiv:2402.14740).",
    )
    scale: Literal["none", "group", "batch"] = Field(default="group", description=_SCALE)


class ToGoAdvantages(Block):
    """One advantage for each step: its return to go against what others had from there."""

    kind: Literal["to_go"] = "to_go"
    baseline: Literal["alive", "zero_padded", "leave_one_out", "linear"] = Field(
        default="alive",
        description=(
            "Mean of the group at the same time over those still running, over all with 0 after the end, or over the "
            "others; or linear: a linear function of the observed vector and of time, fitted to all groups "
            "(arXiv:1604.06778)."
        ),
    )
    scale: Literal["none", "group", "batch"] = Field(default="group", description=_SCALE)


Advantages = Annotated[TrajectoryAdvantages | ToGoAdvantages, Field(discriminator="kind")]

# --- loss --------------------------------------------------------------------------------------------------------

ImportanceLevel = Literal["step", "trajectory", "trajectory_step"]
_IMPORTANCE_LEVEL = (
    "Ratio of each step, the geometric mean over the trajectory (GSPO, arXiv:2507.18071), or the same with each step's "
    "own gradient (GSPO-token)."
)


class ClippedLoss(Block):
    """PPO's clipped surrogate (DeepSeekMath, equation 3)."""

    kind: Literal["clip"] = "clip"
    clip_epsilon: ScheduledFractionBelowOne = Field(
        default=0.2,
        description="Largest distance of a ratio below 1, in (0, 1); a number or a schedule (TRL: 0.2).",
    )
    clip_epsilon_high: ScheduledRate | None = Field(
        default=None,
        description=(
            "Largest distance of a ratio above 1, > 0; a number or a schedule (DAPO, arXiv:2503.14476: 0.28); "
            "null: clip_epsilon."
        ),
    )
    delta: AboveOne | None = Field(
        default=None,
        description="Largest ratio where the advantage is negative, > 1 + clip (arXiv:2505.07291: 4); null: any.",
    )
    importance_level: ImportanceLevel = Field(default="step", description=_IMPORTANCE_LEVEL)


class ReinforceLoss(Block):
    """The plain policy gradient; right for one pass over the data alone."""

    kind: Literal["reinforce"] = "reinforce"


class CISPOLoss(Block):
    """Log-probabilities weighted by capped ratios without gradient (MiniMax-M1, arXiv:2506.13585)."""

    kind: Literal["cispo"] = "cispo"
    max_ratio: Positive = Field(default=5.0, description="Largest weight, > 0 (ScaleRL, arXiv:2510.13786, and TRL: 5).")
    importance_level: ImportanceLevel = Field(default="step", description=_IMPORTANCE_LEVEL)


class SAPOLoss(Block):
    """A soft gate in place of the clip (SAPO, Gao et al. 2025, arXiv:2511.20347)."""

    kind: Literal["sapo"] = "sapo"
    temperature_positive: Positive = Field(
        default=1.0, description="How fast the gradient fades beside ratio 1 where the advantage is positive, > 0."
    )
    temperature_negative: Positive = Field(
        default=1.05, description="The same where it is not, > 0 (the paper: above temperature_positive)."
    )
    importance_level: ImportanceLevel = Field(default="step", description=_IMPORTANCE_LEVEL)


PolicyLoss = Annotated[ClippedLoss | ReinforceLoss | CISPOLoss | SAPOLoss, Field(discriminator="kind")]

# --- zero_variance -----------------------------------------------------------------------------------------------


class PlainZeroVariance(Block):
    """Nothing is collected in their place."""

    kind: Literal["keep", "drop"] = Field(
        default="keep",
        description="keep: they count in the means, with advantages of 0 (TRL); drop: they are left out of the update.",
    )


class ResampleZeroVariance(Block):
    """Others are collected in their place (dynamic sampling, DAPO, arXiv:2503.14476)."""

    kind: Literal["resample"] = "resample"
    max_attempts: Count = Field(
        default=10,
        description="Times as many groups as are wanted, at most, >= 1; then the update takes what there is.",
    )


ZeroVariance = Annotated[PlainZeroVariance | ResampleZeroVariance, Field(discriminator="kind")]

# --- the block ---------------------------------------------------------------------------------------------------


class KLConfig(Block):
    """A penalty for leaving a reference policy, added to each step's loss."""

    coef: ScheduledNonNegative = Field(
        default=0.04, description="Weight, >= 0; a number or a schedule (DeepSeekMath: 0.04; TRL: none at all)."
    )
    estimator: Literal["k1", "k2", "k3", "exact"] = Field(
        default="k3",
        description="k2, k3 (DeepSeekMath): from the actions taken (Schulman 2020); exact: from both distributions.",
    )
    importance_weighted: bool = Field(
        default=False,
        description=(
            "Multiplies the estimate by the ratio to the policy that acted, which makes it one of the present policy "
            "(DeepSeek-V3.2, arXiv:2512.02556: true); not for exact."
        ),
    )
    reference: Reference = Field(default_factory=FrozenReference, description="The policy that is compared with.")


class GRPOConfig(Block):
    """Options of group-relative policy optimisation; there is no critic."""

    group_size: GroupSize = Field(default=8, description="Trajectories of one start, >= 2 (TRL: 8; DeepSeekMath: 64).")
    num_groups: Count = Field(default=4, description="Groups in an iteration, >= 1.")
    starts: Starts = Field(
        default_factory=RepeatedStarts,
        description="Common start of the trajectories of a group; it is verified.",
    )
    max_length: Steps | None = Field(
        default=None,
        description="Steps after which a trajectory is truncated, >= 1; null: where the task does.",
    )
    truncation: Literal["keep", "mask", "bootstrap"] = Field(
        default="keep",
        description=(
            "Truncated trajectories keep the return that they have, are left out of the loss (DAPO), or get the mean "
            "rest of those of their group that were longer."
        ),
    )
    zero_variance: ZeroVariance = Field(
        default_factory=PlainZeroVariance, description="Groups whose returns are all equal; they are counted."
    )
    discount: Fraction = Field(default=0.99, description="Discount of one environment step in returns, in [0, 1].")
    advantages: Advantages = Field(
        default_factory=TrajectoryAdvantages, description="Advantage of an action relative to its group."
    )
    loss: PolicyLoss = Field(
        default_factory=ClippedLoss, description="Loss by which the policy follows its advantages."
    )
    reduction: Literal["grpo", "dapo", "dr_grpo"] = Field(
        default="dapo",
        description=(
            "Mean of the trajectories' means (DeepSeekMath), over all steps of the update (DAPO, TRL), or sum over "
            "the number of trajectories times max_length (Dr. GRPO)."
        ),
    )
    top_entropy_fraction: FractionAboveZero = Field(
        default=1.0,
        description="Share of the steps, the least certain ones, that count, in (0, 1] (arXiv:2506.01939: 0.2).",
    )
    off_policy_threshold: Positive | None = Field(
        default=None,
        description=(
            "Mean log-ratio, in nats, by which the policy may have left a trajectory whose negative advantages still "
            "count (DeepSeek-V3.2, arXiv:2512.02556, equation 9), > 0; null: any."
        ),
    )
    entropy_coef: ScheduledNonNegative = Field(
        default=0.0, description="Weight of the entropy bonus, >= 0; a number or a schedule (TRL: 0)."
    )
    kl: KLConfig | None = Field(default=None, description="Penalty for leaving a reference policy; null: none (TRL).")
    num_epochs: Count = Field(default=1, description="Passes over the trajectories of an iteration, >= 1 (TRL: 1).")
    num_minibatches: Count = Field(
        default=1, description="Parts of an iteration, one gradient update each, >= 1; each holds whole trajectories."
    )
    max_grad_norm: Positive | None = Field(default=0.5, description=f"{MAX_GRAD_NORM} (CleanRL's PPO: 0.5).")
    distribution: Distribution = DISTRIBUTION
    orthogonal_init: bool = ORTHOGONAL_INIT
    precision: Precision = PRECISION
    compile: bool = COMPILE
    cuda_graph: bool = CUDA_GRAPH
