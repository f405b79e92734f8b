"""``replay:``, the replay buffer of off-policy learning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tesserl_configs.base import Block, Capacity, Epsilon, Fraction, Positive, Steps, UpToHalf
from tesserl_configs.schedules import ScheduledFraction


class _ReplayOptions(Block):
    capacity: Capacity = Field(
        default=100_000, description="Transitions kept, the oldest are overwritten, >= 1 (IQN paper: 1,000,000)."
    )
    warmup_steps: Steps = Field(
        default=1_000, description="Environment steps before the first gradient update, >= 1 (IQN paper: 50,000)."
    )
    storage: Literal["memory", "memmap"] = Field(default="memory", description="Keep transitions in memory or on disk.")
    share_frames: bool | None = Field(
        default=None,
        description=(
            "Keep each frame of the images once and put stacks together when they are drawn: the same batches, in an "
            "eighth of the memory for stacks of 4 (Beyond The Rainbow); null: where the environment stacks frames."
        ),
    )
    ratio: Positive | None = Field(
        default=None,
        description=(
            "Average number of times that each transition is drawn, > 0, instead of iqn.update_interval "
            "(DQN: batch of 32 / 4 steps = 8; Beyond The Rainbow: 4); null: iqn.update_interval paces the updates."
        ),
    )
    test_fraction: UpToHalf = Field(
        default=0.0,
        description=(
            "Part of the transitions, in [0, 0.5], that is never learned from; each logging interval a batch of them "
            "is evaluated (test/loss, test/td_error). On disk and in the buffer they count as the others."
        ),
    )
    cut_at_exploration: bool = Field(
        default=False,
        description=(
            "The windows of iqn.num_steps end before an action that was not the greedy one, that of their first step "
            "excepted (Sutton and Barto 2018, section 12.10); the discount is that of the shorter window."
        ),
    )


class UniformReplay(_ReplayOptions):
    """Transitions are drawn uniformly."""

    kind: Literal["uniform"] = "uniform"


class PrioritizedReplay(_ReplayOptions):
    """Transitions are drawn by their TD error (Schaul et al. 2016, arXiv:1511.05952)."""

    kind: Literal["prioritized"] = "prioritized"
    alpha: Fraction = Field(default=0.5, description="Exponent of priorities, in [0, 1]; 0: uniform (Rainbow: 0.5).")
    beta: ScheduledFraction = Field(
        default=0.4,
        description="Exponent of the importance weights, in [0, 1]; a number or a schedule (paper: 0.4 rising to 1).",
    )
    weight_exponent: Literal["beta", "alpha"] = Field(
        default="beta",
        description="Exponent of the importance weights: beta (paper) or alpha (Beyond The Rainbow; beta is unused).",
    )
    eps: Epsilon = Field(default=1e-6, description="Added to every TD error, in reward units, > 0.")


Replay = Annotated[UniformReplay | PrioritizedReplay, Field(discriminator="kind")]
