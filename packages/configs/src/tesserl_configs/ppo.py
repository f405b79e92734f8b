"""``ppo:``, proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347).

Defaults are those of CleanRL's ``ppo.py`` unless a key names another source. "37 details" is Huang et al. 2022, The 37
Implementation Details of Proximal Policy Optimization (ICLR blog track).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tesserl_configs.base import AboveOne, Absent, Block, Count, Fraction, NonNegative, Positive
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
from tesserl_configs.schedules import ScheduledFractionBelowOne, ScheduledNonNegative, ScheduledRate

# --- reward_scaling ----------------------------------------------------------------------------------------------


class RunningRewardScaling(Block):
    """Rewards divided by the running standard deviation of the discounted return (37 details, continuous 7 and 8)."""

    kind: Literal["running"] = "running"
    clip: Positive | None = Field(
        default=10.0, description="Largest absolute value of a scaled reward, > 0 (CleanRL: 10); null: no clipping."
    )


RewardScaling = Annotated[Absent | RunningRewardScaling, Field(discriminator="kind")]

# --- the block ---------------------------------------------------------------------------------------------------


class PPOConfig(Block):
    """Options of proximal policy optimisation."""

    num_steps: Count = Field(
        default=128,
        description="Number of steps of each environment in a rollout, >= 1 (paper, Atari: 128; MuJoCo: 2048).",
    )
    num_epochs: Count = Field(
        default=4, description="Number of passes over each rollout, >= 1 (CleanRL: 4; paper: 3 on Atari, 10 on MuJoCo)."
    )
    num_minibatches: Count = Field(
        default=4,
        description=(
            "Number of parts that a rollout is split into, with one gradient update each, >= 1; must divide num_envs "
            "* num_steps (CleanRL: 4)."
        ),
    )
    discount: Fraction = Field(default=0.99, description="Discount of one environment step, in [0, 1] (paper: 0.99).")
    gae_lambda: Fraction = Field(
        default=0.95,
        description="Lambda of generalised advantage estimation (arXiv:1506.02438), in [0, 1] (paper: 0.95).",
    )
    clip_epsilon: ScheduledFractionBelowOne = Field(
        default=0.2,
        description=(
            "Distance from 1 at which the ratio of probabilities is clipped, in (0, 1); a number or a schedule "
            "(paper: 0.2; Atari: 0.1 falling to 0)."
        ),
    )
    clip_epsilon_high: ScheduledRate | None = Field(
        default=None,
        description=(
            "Distance above 1 at which the ratio is clipped, > 0; a number or a schedule (DAPO, arXiv:2503.14476: "
            "0.28); null: clip_epsilon."
        ),
    )
    dual_clip: AboveOne | None = Field(
        default=None,
        description=(
            "Upper bound of the ratio for negative advantages, > 1 (Ye et al. 2020, arXiv:1912.09729: 3); null: no "
            "bound."
        ),
    )
    value_clip: Positive | None = Field(
        default=None,
        description=(
            "Largest distance between a value and that of the rollout, in reward units, > 0 (CleanRL: 0.2); null: no "
            "clipping, as Andrychowicz et al. 2021 (arXiv:2006.05990) advise."
        ),
    )
    value_loss: Literal["l2", "smooth_l1"] = Field(
        default="l2",
        description=(
            "Loss of the value. l2: half the squared error (paper); smooth_l1: the same up to an error of 1, linear "
            "beyond."
        ),
    )
    value_coef: NonNegative = Field(default=0.5, description="Weight of the value loss, >= 0 (CleanRL: 0.5).")
    entropy_coef: ScheduledNonNegative = Field(
        default=0.01,
        description="Weight of the entropy bonus, >= 0; a number or a schedule (paper, Atari: 0.01; MuJoCo: 0).",
    )
    normalize_advantage: bool = Field(
        default=True,
        description=(
            "Normalise the advantages of each minibatch to mean 0 and standard deviation 1 (37 details, core 7)."
        ),
    )
    max_grad_norm: Positive | None = Field(default=0.5, description=f"{MAX_GRAD_NORM} (CleanRL: 0.5).")
    target_kl: Positive | None = Field(
        default=None,
        description=(
            "Skip the remaining epochs of a rollout once the approximate KL divergence from its policy exceeds this, "
            "in nats, > 0 (Spinning Up: 0.015); null: never."
        ),
    )
    shared_body: bool = Field(
        default=True,
        description=(
            "Share one body between actor and critic; false: give the critic a separate body of the same structure."
        ),
    )
    distribution: Distribution = DISTRIBUTION
    orthogonal_init: bool = ORTHOGONAL_INIT
    reward_scaling: RewardScaling = Field(
        default_factory=Absent, description="Scaling of the rewards of training; none: unscaled."
    )
    loss: Literal["tesserl", "torchrl"] = Field(
        default="tesserl",
        description="Implementation of the loss: tesserl_actor_critic.PPOLoss, or torchrl's ClipPPOLoss.",
    )
    precision: Precision = PRECISION
    compile: bool = COMPILE
    cuda_graph: bool = CUDA_GRAPH
