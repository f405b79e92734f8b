"""``replay:``, the replay buffer of off-policy learning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tesserl_configs.base import Block, Count, Fraction, Positive
from tesserl_configs.schedules import ScheduledFraction


class _ReplayOptions(Block):
    capacity: Count = Field(
        default=100_000, description="Transitions kept, the oldest are overwritten, >= 1 (IQN paper: 1,000,000)."
    )
    warmup_steps: Count = Field(
        default=1_000, description="Environment steps before the first gradient update, >= 1 (IQN paper: 50,000)."
    )
    storage: Literal["memory", "memmap"] = Field(default="memory", description="Keep transitions in memory or on disk.")


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
    eps: Positive = Field(default=1e-6, description="Added to every TD error, in reward units, > 0.")


Replay = Annotated[UniformReplay | PrioritizedReplay, Field(discriminator="kind")]
