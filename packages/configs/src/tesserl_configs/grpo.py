"""``grpo:``, group-relative policy optimisation (Shao et al. 2024, DeepSeekMath, arXiv:2402.03300), for control.

Values marked TRL are the defaults of TRL's ``GRPOTrainer``.
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
from tesserl_configs.starts import BranchingStarts, RepeatedStarts

# --- advantages --------------------------------------------------------------------------------------------------

_SCALE = (
    "Standard deviation that divides the advantages: none (Dr. GRPO, arXiv:2503.20783), that of their group "
    "(DeepSeekMath), or that of the batch (REINFORCE++, arXiv:2501.03262)."
)


class TrajectoryAdvantages(Block):
    """One advantage for all steps of a trajectory: its return minus a baseline of its group (DeepSeekMath)."""

    kind: Literal["trajectory"] = "trajectory"
    baseline: Literal["mean", "leave_one_out"] = Field(
        default="mean",
        description=(
            "Baseline of a return. mean: mean return of the group (DeepSeekMath); leave_one_out: mean return of the "
            "other trajectories (RLOO, arXiv:2402.14740)."
        ),
    )
    scale: Literal["none", "group", "batch"] = Field(default="group", description=_SCALE)


class ToGoAdvantages(Block):
    """One advantage for each step: its return to go minus a baseline of the group."""

    kind: Literal["to_go"] = "to_go"
    baseline: Literal["alive", "zero_padded", "leave_one_out", "linear"] = Field(
        default="alive",
        description=(
            "Baseline of a return to go. alive: mean at the same time over the trajectories still running; "
            "zero_padded: mean over all, with 0 after the end; leave_one_out: alive without the trajectory itself; "
            "linear: linear function of the observed vector and of time, fitted to all groups (arXiv:1604.06778)."
        ),
    )
    scale: Literal["none", "group", "batch"] = Field(default="group", description=_SCALE)


Advantages = Annotated[TrajectoryAdvantages | ToGoAdvantages, Field(discriminator="kind")]

# --- loss --------------------------------------------------------------------------------------------------------

ImportanceLevel = Literal["step", "trajectory", "trajectory_step"]
_IMPORTANCE_LEVEL = (
    "Ratio used in the loss. step: of each step; trajectory: geometric mean over the trajectory (GSPO, "
    "arXiv:2507.18071); trajectory_step: that mean, but with the gradient of each step (GSPO-token)."
)


class ClippedLoss(Block):
    """PPO's clipped surrogate (DeepSeekMath, equation 3)."""

    kind: Literal["clip"] = "clip"
    clip_epsilon: ScheduledFractionBelowOne = Field(
        default=0.2,
        description="Distance below 1 at which a ratio is clipped, in (0, 1); a number or a schedule (TRL: 0.2).",
    )
    clip_epsilon_high: ScheduledRate | None = Field(
        default=None,
        description=(
            "Distance above 1 at which a ratio is clipped, > 0; a number or a schedule (DAPO, arXiv:2503.14476: "
            "0.28); null: clip_epsilon."
        ),
    )
    delta: AboveOne | None = Field(
        default=None,
        description=(
            "Upper bound of the ratio for negative advantages, > 1 + clip_epsilon_high (arXiv:2505.07291: 4); null: "
            "no bound."
        ),
    )
    importance_level: ImportanceLevel = Field(default="step", description=_IMPORTANCE_LEVEL)


class ReinforceLoss(Block):
    """The plain policy gradient; correct only for a single pass over the data."""

    kind: Literal["reinforce"] = "reinforce"


class CISPOLoss(Block):
    """Log-probabilities weighted by capped ratios without gradient (MiniMax-M1, arXiv:2506.13585)."""

    kind: Literal["cispo"] = "cispo"
    max_ratio: Positive = Field(
        default=5.0, description="Largest weight of a log-probability, > 0 (ScaleRL, arXiv:2510.13786, and TRL: 5)."
    )
    importance_level: ImportanceLevel = Field(default="step", description=_IMPORTANCE_LEVEL)


class SAPOLoss(Block):
    """A soft gate on the ratio in place of clipping (SAPO, Gao et al. 2025, arXiv:2511.20347)."""

    kind: Literal["sapo"] = "sapo"
    temperature_positive: Positive = Field(
        default=1.0,
        description=(
            "Temperature of the gate for positive advantages, > 0; the larger, the faster the gradient fades as the "
            "ratio leaves 1."
        ),
    )
    temperature_negative: Positive = Field(
        default=1.05,
        description="Temperature of the gate for all other advantages, > 0 (the paper: above temperature_positive).",
    )
    importance_level: ImportanceLevel = Field(default="step", description=_IMPORTANCE_LEVEL)


PolicyLoss = Annotated[ClippedLoss | ReinforceLoss | CISPOLoss | SAPOLoss, Field(discriminator="kind")]

# --- zero_variance -----------------------------------------------------------------------------------------------


class PlainZeroVariance(Block):
    """Collect no replacement for groups with equal returns."""

    kind: Literal["keep", "drop"] = Field(
        default="keep",
        description=(
            "keep: count the groups in the means, with advantages of 0 (TRL); drop: leave them out of the update."
        ),
    )


class ResampleZeroVariance(Block):
    """Collect replacements for groups with equal returns (dynamic sampling, DAPO, arXiv:2503.14476)."""

    kind: Literal["resample"] = "resample"
    max_attempts: Count = Field(
        default=10,
        description=(
            "Largest number of groups collected, as a multiple of num_groups, >= 1; then the update uses the groups "
            "found so far."
        ),
    )


ZeroVariance = Annotated[PlainZeroVariance | ResampleZeroVariance, Field(discriminator="kind")]

# --- the block ---------------------------------------------------------------------------------------------------


class KLConfig(Block):
    """Penalty for diverging from a reference policy, added to the loss of each step."""

    coef: ScheduledNonNegative = Field(
        default=0.04,
        description="Weight of the penalty, >= 0; a number or a schedule (DeepSeekMath: 0.04; TRL: no penalty).",
    )
    estimator: Literal["k1", "k2", "k3", "exact"] = Field(
        default="k3",
        description=(
            "Estimator of the divergence. k2, k3 (DeepSeekMath): from the actions taken (Schulman 2020); exact: from "
            "both distributions; k1 is refused, as its expected gradient is 0."
        ),
    )
    importance_weighted: bool = Field(
        default=False,
        description=(
            "Multiply the estimate by the ratio to the policy that acted, so that it holds for the current policy "
            "(DeepSeek-V3.2, arXiv:2512.02556: true); not with exact."
        ),
    )
    reference: Reference = Field(default_factory=FrozenReference, description="Reference policy of the penalty.")


class GRPOConfig(Block):
    """Options of group-relative policy optimisation; there is no critic."""

    group_size: GroupSize = Field(
        default=8, description="Number of trajectories from one start, >= 2 (TRL: 8; DeepSeekMath: 64)."
    )
    num_groups: Count = Field(default=4, description="Number of groups per iteration, >= 1.")
    starts: BranchingStarts = Field(
        default_factory=RepeatedStarts,
        description=(
            "Start that the trajectories of a group have in common; the trainer verifies that it is the same."
        ),
    )
    max_length: Steps | None = Field(
        default=None,
        description=(
            "Number of steps after which a trajectory is truncated, counted from its reset, >= 1; null: only the task "
            "ends it."
        ),
    )
    truncation: Literal["keep", "mask", "bootstrap"] = Field(
        default="keep",
        description=(
            "Treatment of truncated trajectories. keep: use the return so far; mask: leave them out of the loss "
            "(DAPO); bootstrap: add the mean remaining return of longer trajectories in their group."
        ),
    )
    zero_variance: ZeroVariance = Field(
        default_factory=PlainZeroVariance,
        description="Treatment of groups whose returns are all equal; a metric counts them.",
    )
    discount: Fraction = Field(default=0.99, description="Discount of one environment step, in [0, 1].")
    advantages: Advantages = Field(
        default_factory=TrajectoryAdvantages, description="Advantage of an action relative to its group."
    )
    loss: PolicyLoss = Field(default_factory=ClippedLoss, description="Loss of the policy for given advantages.")
    reduction: Literal["grpo", "dapo", "dr_grpo"] = Field(
        default="dapo",
        description=(
            "Average of the loss. grpo: mean of the trajectories' means (DeepSeekMath); dapo: mean over all steps of "
            "the update (DAPO, TRL); dr_grpo: sum divided by the number of trajectories times max_length (Dr. GRPO)."
        ),
    )
    top_entropy_fraction: FractionAboveZero = Field(
        default=1.0,
        description=(
            "Fraction of the steps used in the loss, those with the highest entropy, in (0, 1] (arXiv:2506.01939: 0.2)."
        ),
    )
    off_policy_threshold: Positive | None = Field(
        default=None,
        description=(
            "Ignore negative advantages of trajectories from which the policy differs by more than this mean "
            "log-ratio, in nats, > 0 (DeepSeek-V3.2, arXiv:2512.02556, equation 9); null: never."
        ),
    )
    entropy_coef: ScheduledNonNegative = Field(
        default=0.0, description="Weight of the entropy bonus, >= 0; a number or a schedule (TRL: 0)."
    )
    kl: KLConfig | None = Field(
        default=None, description="Penalty for diverging from a reference policy; null: none (TRL)."
    )
    num_epochs: Count = Field(
        default=1, description="Number of passes over the trajectories of an iteration, >= 1 (TRL: 1)."
    )
    num_minibatches: Count = Field(
        default=1,
        description=(
            "Number of parts that an iteration is split into, with one gradient update each, >= 1; each part holds "
            "whole trajectories."
        ),
    )
    max_grad_norm: Positive | None = Field(default=0.5, description=f"{MAX_GRAD_NORM} (CleanRL's PPO: 0.5).")
    distribution: Distribution = DISTRIBUTION
    orthogonal_init: bool = ORTHOGONAL_INIT
    precision: Precision = PRECISION
    compile: bool = COMPILE
    cuda_graph: bool = CUDA_GRAPH
