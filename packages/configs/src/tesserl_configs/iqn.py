"""``iqn:``, the algorithm of Dabney et al. 2018 (arXiv:1806.06923) with its extensions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tesserl_configs.base import (
    AtLeastOne,
    Block,
    Count,
    Exponent,
    Fraction,
    FractionAboveZero,
    NonNegative,
    NonPositive,
    Pixels,
    Positive,
    PositiveExponent,
    Steps,
    Width,
    Window,
)
from tesserl_configs.policy import COMPILE, CUDA_GRAPH, PRECISION, Precision
from tesserl_configs.schedules import Schedule, ScheduledFraction, ScheduledPositive


class MunchausenConfig(Block):
    """The Munchausen target (Vieillard et al. 2020, arXiv:2007.14430); it does not use Double-Q."""

    alpha: Fraction = Field(default=0.9, description="Weight of the log-policy bonus, in [0, 1] (paper: 0.9).")
    temperature: Positive = Field(default=0.03, description="Entropy temperature, in reward units, > 0 (paper: 0.03).")
    clip: NonPositive = Field(
        default=-1.0, description="Lower bound of the scaled log-policy, in reward units, <= 0 (paper: -1)."
    )
    log_policy: Literal["target", "online"] = Field(
        default="target",
        description="Network whose log-policy gives the bonus: target (paper) or online (Beyond The Rainbow).",
    )


# --- target_update -----------------------------------------------------------------------------------------------


class SoftUpdate(Block):
    """Move the target network towards the online network: target += rate (online - target)."""

    kind: Literal["soft"] = "soft"
    rate: FractionAboveZero = Field(
        default=0.005, description="Polyak rate, in (0, 1] (Lillicrap et al. 2016 and later: 0.001 to 0.01)."
    )
    interval: Steps = Field(default=1, description="Number of gradient updates between two moves, >= 1.")


class HardUpdate(Block):
    """Copy the online network to the target network."""

    kind: Literal["hard"] = "hard"
    interval: Steps = Field(
        default=2_500, description="Number of gradient updates between two copies, >= 1 (paper: 10,000 steps / 4)."
    )


TargetUpdate = Annotated[SoftUpdate | HardUpdate, Field(discriminator="kind")]

# --- exploration -------------------------------------------------------------------------------------------------


PER_BLOCK = (
    "Decide separately for each action block whether its action is random; false decides once for all blocks "
    "of an observation. Without action blocks it has no effect."
)


def _dopamine_epsilon() -> ScheduledFraction:
    return Schedule(kind="linear", knots=((0, 1.0), (250_000, 0.01)))


class EpsilonExploration(Block):
    """Take a random action with probability epsilon, and otherwise the greedy one."""

    kind: Literal["epsilon"] = "epsilon"
    epsilon: ScheduledFraction = Field(
        default_factory=_dopamine_epsilon,
        description=(
            "Probability of a random action, in [0, 1]; a number or a schedule (Dopamine's IQN: from 1 to 0.01 in "
            "1,000,000 frames, 4 per step)."
        ),
    )
    per_block: bool = Field(default=True, description=PER_BLOCK)


class BoltzmannExploration(Block):
    """Draw actions from the softmax of the action values."""

    kind: Literal["boltzmann"] = "boltzmann"
    temperature: ScheduledPositive = Field(
        default=0.03,
        description=(
            "Temperature of the softmax, in reward units, > 0; a number or a schedule (M-IQN paper: temperature of "
            "the target)."
        ),
    )
    epsilon: ScheduledFraction = Field(
        default=0.0, description="Probability of a random action, in [0, 1]; a number or a schedule."
    )
    per_block: bool = Field(default=True, description=PER_BLOCK)


class NoisyExploration(Block):
    """Take the greedy action of a network with noisy layers (nn.heads.noisy)."""

    kind: Literal["noisy"] = "noisy"
    epsilon: ScheduledFraction = Field(
        default=0.0, description="Probability of a random action, in [0, 1]; a number or a schedule."
    )
    per_block: bool = Field(default=True, description=PER_BLOCK)


Exploration = Annotated[EpsilonExploration | BoltzmannExploration | NoisyExploration, Field(discriminator="kind")]

# --- risk --------------------------------------------------------------------------------------------------------


ExplorationOnly = Annotated[
    bool, Field(description="Distort the fractions while collecting only, not in evaluation and export.")
]


class CVaRRisk(Block):
    """Act on the mean of the worst outcomes."""

    kind: Literal["cvar"] = "cvar"
    eta: FractionAboveZero = Field(
        description="Fraction of the worst outcomes to average over, in (0, 1]; 1 is risk-neutral."
    )
    exploration_only: ExplorationOnly = False


class ShiftedRisk(Block):
    """Act on distorted fractions, to avoid or seek risk."""

    kind: Literal["wang", "pow"] = Field(
        description=(
            "wang: shift the fractions on the scale of a normal distribution; pow: raise the fractions to a power."
        )
    )
    eta: Exponent = Field(
        description=(
            "Shift in standard deviations (wang) or power (pow; paper: -2); below 0 avoids risk, 0 is neutral, above "
            "0 seeks risk."
        )
    )
    exploration_only: ExplorationOnly = False


class CPWRisk(Block):
    """Act by cumulative prospect theory, a model of human decisions."""

    kind: Literal["cpw"] = "cpw"
    eta: PositiveExponent = Field(description="Curvature of the distortion, > 0; 1 is risk-neutral (paper: 0.71).")
    exploration_only: ExplorationOnly = False


Risk = Annotated[CVaRRisk | ShiftedRisk | CPWRisk, Field(discriminator="kind")]

# --- reset -------------------------------------------------------------------------------------------------------


class ResetConfig(Block):
    """Move the weights towards a fresh initialisation at intervals: shrink and perturb.

    Ash & Adams 2020 (arXiv:1910.08475); for last layers and targets, Nikishin et al. 2022 (arXiv:2205.07802).
    """

    interval: Steps = Field(description="Number of gradient updates between two resets, >= 1.")
    factor: Fraction = Field(
        default=0.01, description="Fraction of the distance to the fresh weights that all weights move, in [0, 1]."
    )
    last_layer_factor: Fraction = Field(
        default=0.8, description="Fraction of that distance for the last layer of each stream of the heads, in [0, 1]."
    )


class FixedHorizonConfig(Block):
    """Let values sum the rewards of a fixed number of next steps (Linesight's mini-races; arXiv:1712.00378).

    The observation holds a clock. Learning sets it to a random time, and the end of the horizon counts as a terminal
    state.
    """

    steps: Steps = Field(
        description=("Number of environment steps that a value looks ahead, >= 1; a discount of 1 is allowed.")
    )
    start_fraction: Fraction = Field(
        default=0.0,
        description=(
            "Probability that learning sets the clock to 0, as in acting, instead of drawing it uniformly, in [0, 1]."
        ),
    )


# --- the block ---------------------------------------------------------------------------------------------------


class IQNConfig(Block):
    """Options of implicit quantile networks."""

    num_taus: Width = Field(
        default=8,
        description=(
            "Number of fractions of each prediction, N in the paper, >= 1 (paper: 64; Tianshou, BY571, BTR: 8)."
        ),
    )
    num_target_taus: Width = Field(
        default=8,
        description="Number of fractions of each target, N' in the paper, >= 1 (paper: 64; Tianshou, BY571, BTR: 8).",
    )
    num_policy_taus: Width = Field(
        default=32,
        description="Number of fractions averaged for the value of an action, K in the paper, >= 1 (paper: 32).",
    )
    tau_sampling: Literal["uniform", "stratified", "antithetic"] = Field(
        default="uniform", description="Sampling of the fractions in training (paper: uniform)."
    )
    policy_tau_sampling: Literal["uniform", "midpoint"] = Field(
        default="midpoint", description="Choice of the fractions when acting; midpoint is deterministic."
    )
    num_cosines: Width = Field(default=64, description="Number of cosine features of a fraction, >= 1 (paper: 64).")
    cosine_start: Literal[0, 1] = Field(
        default=0,
        description="Index of the first cosine: 0 (paper, Beyond The Rainbow) or 1 (Dopamine and its family).",
    )
    cosine_activation: Literal["relu", "leaky_relu"] = Field(
        default="relu",
        description="Activation of the embedding of a fraction: relu (paper) or leaky_relu, slope 0.01 (Linesight).",
    )
    num_fixed_quantiles: Width | None = Field(
        default=None,
        description=(
            "Number of quantiles of each action at fixed fractions, >= 1, as in QR-DQN "
            "(Dabney et al. 2017, arXiv:1710.10044: 200); null: IQN with drawn fractions."
        ),
    )
    discount: Fraction = Field(default=0.99, description="Discount of one environment step, in [0, 1] (paper: 0.99).")
    num_steps: Window = Field(default=1, description="Number of rewards summed before bootstrapping, >= 1 (paper: 1).")
    double: bool = Field(
        default=True,
        description=(
            "Choose the action of the target by the online network (van Hasselt et al. 2016); no effect with "
            "munchausen."
        ),
    )
    kappa: NonNegative = Field(
        default=1.0, description="Threshold of the Huber loss, in reward units, >= 0; 0: quantile loss (paper: 1)."
    )
    self_loss_clamp_ratio: AtLeastOne | None = Field(
        default=None,
        description=(
            "Divide each loss by the spread of its own targets, but enlarge no loss by more than about this factor, "
            ">= 1 (Linesight: 4); null: no division."
        ),
    )
    munchausen: MunchausenConfig | None = Field(default=None, description="Munchausen target; null: the plain target.")
    target_update: TargetUpdate = Field(default_factory=SoftUpdate, description="Update of the target network.")
    update_interval: Steps | None = Field(
        default=4,
        description="Number of environment steps per gradient update, >= 1 (paper: 4); null: replay.ratio sets it.",
    )
    collect_steps: Count = Field(
        default=1, description="Number of steps of each environment between two rounds of updates, >= 1."
    )
    batch_size: Count = Field(
        default=32, description="Number of transitions in each gradient update, >= 1 (paper: 32)."
    )
    max_grad_norm: Positive | None = Field(
        default=10.0,
        description="Largest norm of the gradient, > 0; null: no clipping (Beyond The Rainbow: 10).",
    )
    random_crop: Pixels | None = Field(
        default=None,
        description=(
            "Largest random shift of the images in training, in pixels in each direction with edges repeated, >= 1 "
            "(DrQ, arXiv:2004.13649: 4 of 84); null: no shift."
        ),
    )
    fixed_horizon: FixedHorizonConfig | None = Field(
        default=None,
        description="Horizon that values look ahead; needs the wrapper clock. null: values of whole episodes.",
    )
    reset: ResetConfig | None = Field(default=None, description="Periodic partial reset of the weights; null: never.")
    exploration: Exploration = Field(default_factory=EpsilonExploration, description="Exploration in training.")
    risk: Risk | None = Field(default=None, description="Distortion of the fractions when acting; null: risk-neutral.")
    precision: Precision = PRECISION
    compile: bool = COMPILE
    cuda_graph: bool = CUDA_GRAPH
