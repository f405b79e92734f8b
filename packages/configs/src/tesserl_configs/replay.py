"""``replay:``, the replay buffer of off-policy learning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tesserl_configs.base import Block, Capacity, Epsilon, Fraction, Positive, Steps, UpToHalf
from tesserl_configs.schedules import ScheduledFraction


class _ReplayOptions(Block):
    capacity: Capacity = Field(
        default=100_000,
        description="Number of transitions kept, >= 1; the oldest are overwritten (IQN paper: 1,000,000).",
    )
    warmup_steps: Steps = Field(
        default=1_000,
        description="Number of environment steps before the first gradient update, >= 1 (IQN paper: 50,000).",
    )
    storage: Literal["memory", "memmap"] = Field(
        default="memory", description="Place of the transitions: memory, or memmap for files on disk."
    )
    share_frames: bool | None = Field(
        default=None,
        description=(
            "Store each frame once and build stacks when transitions are drawn: the same batches, in an eighth of the "
            "memory for stacks of 4 (Beyond The Rainbow); null: if the environment stacks frames."
        ),
    )
    ratio: Positive | None = Field(
        default=None,
        description=(
            "Average number of times that each transition is drawn, > 0, in place of iqn.update_interval (DQN: batch "
            "of 32 / 4 steps = 8; Beyond The Rainbow: 4); null: iqn.update_interval sets the pace."
        ),
    )
    test_fraction: UpToHalf = Field(
        default=0.0,
        description=(
            "Fraction of the transitions held out of training, in [0, 0.5]; they take space in the buffer like the "
            "others. Each logging interval evaluates a batch of them (test/loss, test/td_error)."
        ),
    )
    cut_at_exploration: bool = Field(
        default=False,
        description=(
            "End the windows of iqn.num_steps before an action that was not greedy, except their first action (Sutton "
            "and Barto 2018, section 12.10); the discount is that of the shorter window."
        ),
    )


class UniformReplay(_ReplayOptions):
    """Draw transitions uniformly."""

    kind: Literal["uniform"] = "uniform"


class PrioritizedReplay(_ReplayOptions):
    """Draw transitions by their TD error (Schaul et al. 2016, arXiv:1511.05952)."""

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
    eps: Epsilon = Field(default=1e-6, description="Term added to every TD error, in reward units, > 0.")


Replay = Annotated[UniformReplay | PrioritizedReplay, Field(discriminator="kind")]
