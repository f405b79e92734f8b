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
    """The Munchausen target (Vieillard et al. 2020, arXiv:2007.14430); there is no Double-Q under it."""

    alpha: Fraction = Field(default=0.9, description="Weight of the log-policy bonus, in [0, 1] (paper: 0.9).")
    temperature: Positive = Field(default=0.03, description="Entropy temperature, in reward units, > 0 (paper: 0.03).")
    clip: NonPositive = Field(
        default=-1.0, description="Lower bound of the scaled log-policy, in reward units, <= 0 (paper: -1)."
    )
    log_policy: Literal["target", "online"] = Field(
        default="target", description="Network of the bonus: target (paper) or online (Beyond The Rainbow)."
    )


# --- target_update -----------------------------------------------------------------------------------------------


class SoftUpdate(Block):
    """The target moves a little towards the online network: target += rate (online - target)."""

    kind: Literal["soft"] = "soft"
    rate: FractionAboveZero = Field(
        default=0.005, description="Polyak rate, in (0, 1] (Lillicrap et al. 2016 and later: 0.001 to 0.01)."
    )
    interval: Steps = Field(default=1, description="Gradient updates from one move to the next, >= 1.")


class HardUpdate(Block):
    """The target becomes a copy of the online network."""

    kind: Literal["hard"] = "hard"
    interval: Steps = Field(
        default=2_500, description="Gradient updates from one copy to the next, >= 1 (paper: 10,000 steps / 4)."
    )


TargetUpdate = Annotated[SoftUpdate | HardUpdate, Field(discriminator="kind")]

# --- exploration -------------------------------------------------------------------------------------------------


PER_BLOCK = (
    "Draw for each action block whether its action is random; false: once for all blocks of an observation. "
    "Without blocks this changes nothing."
)


def _dopamine_epsilon() -> ScheduledFraction:
    return Schedule(kind="linear", knots=((0, 1.0), (250_000, 0.01)))


class EpsilonExploration(Block):
    """A random action with probability epsilon, else the greedy one."""

    kind: Literal["epsilon"] = "epsilon"
    epsilon: ScheduledFraction = Field(
        default_factory=_dopamine_epsilon,
        description=(
            "Probability of a random action, in [0, 1]; a number or a schedule "
            "(Dopamine's IQN: from 1 to 0.01 in 1,000,000 frames, 4 a step)."
        ),
    )
    per_block: bool = Field(default=True, description=PER_BLOCK)


class BoltzmannExploration(Block):
    """An action drawn from the softmax of the action values."""

    kind: Literal["boltzmann"] = "boltzmann"
    temperature: ScheduledPositive = Field(
        default=0.03,
        description="Temperature, in reward units, > 0; a number or a schedule (M-IQN paper: that of its target).",
    )
    epsilon: ScheduledFraction = Field(
        default=0.0, description="Probability of a random action, in [0, 1]; a number or a schedule."
    )
    per_block: bool = Field(default=True, description=PER_BLOCK)


class NoisyExploration(Block):
    """The greedy action under the noise of nn.heads.noisy."""

    kind: Literal["noisy"] = "noisy"
    epsilon: ScheduledFraction = Field(
        default=0.0, description="Probability of a random action, in [0, 1]; a number or a schedule."
    )
    per_block: bool = Field(default=True, description=PER_BLOCK)


Exploration = Annotated[EpsilonExploration | BoltzmannExploration | NoisyExploration, Field(discriminator="kind")]

# --- risk --------------------------------------------------------------------------------------------------------


class CVaRRisk(Block):
    """Act on the mean of the worst outcomes."""

    kind: Literal["cvar"] = "cvar"
    eta: FractionAboveZero = Field(description="Fraction of outcomes, in (0, 1]; 1 is neutral.")


class ShiftedRisk(Block):
    """Act on changed taus: averse, or seeking risk."""

    kind: Literal["wang", "pow"] = Field(
        description="wang: taus shifted in the quantiles of the normal distribution; pow: powers of the taus."
    )
    eta: Exponent = Field(
        description="Shift in standard deviations, or power (paper: -2): below 0 averse, 0 neutral, above 0 seeking."
    )


class CPWRisk(Block):
    """Act as cumulative prospect theory says that people do."""

    kind: Literal["cpw"] = "cpw"
    eta: PositiveExponent = Field(description="Curvature, > 0; 1 is neutral (paper: 0.71).")


Risk = Annotated[CVaRRisk | ShiftedRisk | CPWRisk, Field(discriminator="kind")]

# --- reset -------------------------------------------------------------------------------------------------------


class ResetConfig(Block):
    """Weights move towards a fresh initialisation from time to time: shrink and perturb.

    Ash & Adams 2020 (arXiv:1910.08475); Nikishin et al. 2022 (arXiv:2205.07802) for last layers and targets.
    """

    interval: Steps = Field(description="Gradient updates from one reset to the next, >= 1.")
    factor: Fraction = Field(
        default=0.01, description="Distance that all weights move, in [0, 1]; 0: not at all, 1: all the way."
    )
    last_layer_factor: Fraction = Field(
        default=0.8, description="Distance that the last layer of each stream of the heads moves, in [0, 1]."
    )


class FixedHorizonConfig(Block):
    """Values of the next steps alone, by a clock in the observation (Linesight's mini-races; arXiv:1712.00378).

    Each transition is learned from at a random clock; the horizon ends it as a terminal state does.
    """

    steps: Steps = Field(description="Environment steps that a value looks ahead, >= 1; discount 1 is fine.")
    start_fraction: Fraction = Field(
        default=0.0,
        description="Probability of clock 0, at which actions are chosen, beside its share of the rest, in [0, 1].",
    )


# --- the block ---------------------------------------------------------------------------------------------------


class IQNConfig(Block):
    """Options of implicit quantile networks."""

    num_taus: Width = Field(
        default=8,
        description="Fractions of each prediction, N in the paper, >= 1 (paper: 64; Tianshou, BY571, BTR: 8).",
    )
    num_target_taus: Width = Field(
        default=8, description="Fractions of each target, N' in the paper, >= 1 (paper: 64; Tianshou, BY571, BTR: 8)."
    )
    num_policy_taus: Width = Field(
        default=32, description="Fractions whose mean is an action's value, K in the paper, >= 1 (paper: 32)."
    )
    tau_sampling: Literal["uniform", "stratified", "antithetic"] = Field(
        default="uniform", description="Sampling of the fractions in training (paper: uniform)."
    )
    policy_tau_sampling: Literal["uniform", "midpoint"] = Field(
        default="midpoint", description="Choice of the fractions when acting; midpoint is deterministic."
    )
    num_cosines: Width = Field(default=64, description="Cosine features of a fraction, >= 1 (paper: 64).")
    cosine_start: Literal[0, 1] = Field(
        default=0, description="First cosine: 0 (paper, Beyond The Rainbow) or 1 (Dopamine and its family)."
    )
    cosine_activation: Literal["relu", "leaky_relu"] = Field(
        default="relu",
        description="Activation of the embedding of a fraction: relu (paper) or leaky_relu, slope 0.01 (Linesight).",
    )
    num_fixed_quantiles: Width | None = Field(
        default=None,
        description=(
            "Quantiles of each action at fixed fractions, QR-DQN (Dabney et al. 2017, arXiv:1710.10044), instead of an "
            "embedding of drawn ones, >= 1 (its paper: 200); null: IQN."
        ),
    )
    discount: Fraction = Field(default=0.99, description="Discount of one environment step, in [0, 1] (paper: 0.99).")
    num_steps: Window = Field(default=1, description="Rewards summed before bootstrapping, >= 1 (paper: 1).")
    double: bool = Field(
        default=True,
        description="The online network chooses the target's action (van Hasselt et al. 2016); unused by munchausen.",
    )
    kappa: NonNegative = Field(
        default=1.0, description="Threshold of the Huber loss, in reward units, >= 0; 0: quantile loss (paper: 1)."
    )
    self_loss_clamp_ratio: AtLeastOne | None = Field(
        default=None,
        description=(
            "Divides each loss by the scatter of its own targets, which may enlarge it by about this ratio, >= 1 "
            "(Linesight: 4); null: losses are left as they are."
        ),
    )
    munchausen: MunchausenConfig | None = Field(default=None, description="The Munchausen target; null: none.")
    target_update: TargetUpdate = Field(default_factory=SoftUpdate, description="Update of the target network.")
    update_interval: Steps | None = Field(
        default=4, description="Environment steps per gradient update, >= 1 (paper: 4); null: replay.ratio says it."
    )
    collect_steps: Count = Field(
        default=1, description="Steps of all environments together between two rounds of updates, >= 1."
    )
    batch_size: Count = Field(default=32, description="Transitions in each gradient update, >= 1 (paper: 32).")
    max_grad_norm: Positive | None = Field(
        default=10.0,
        description="Norm to clip gradients to, > 0; null: no clipping (Beyond The Rainbow: 10).",
    )
    random_crop: Pixels | None = Field(
        default=None,
        description=(
            "Shifts the images of each transition at random when learning, by at most so many pixels in each "
            "direction, edges repeated, >= 1 (DrQ, arXiv:2004.13649: 4 of 84); null: never."
        ),
    )
    fixed_horizon: FixedHorizonConfig | None = Field(
        default=None, description="Values of a fixed horizon, with the wrapper clock; null: of whole episodes."
    )
    reset: ResetConfig | None = Field(default=None, description="Periodic partial reset of the weights; null: never.")
    exploration: Exploration = Field(default_factory=EpsilonExploration, description="Choice of actions in training.")
    risk: Risk | None = Field(default=None, description="Distortion of the fractions when acting; null: neutral.")
    precision: Precision = PRECISION
    compile: bool = COMPILE
    cuda_graph: bool = CUDA_GRAPH
