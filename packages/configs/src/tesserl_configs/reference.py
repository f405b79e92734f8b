"""The reference policy of preference optimisation and KL penalties, which is saved in checkpoints."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tesserl_configs.base import Absent, Block, FractionAboveZero, Steps


class FrozenReference(Block):
    """Keep the policy at the start of the run, after pretraining (DeepSeekMath, DPO)."""

    kind: Literal["frozen"] = "frozen"


class SyncReference(Block):
    """Copy the policy at intervals (TR-DPO, Gorbatovski et al. 2024, arXiv:2404.09656, hard update)."""

    kind: Literal["sync"] = "sync"
    interval: Steps = Field(
        default=512, description="Number of gradient updates between two copies, >= 1 (TRL, after TR-DPO: 512)."
    )


class MovingAverageReference(Block):
    """Move towards the policy at intervals: reference += rate (policy - reference) (TR-DPO, soft update)."""

    kind: Literal["moving_average"] = "moving_average"
    rate: FractionAboveZero = Field(
        default=0.6,
        description=(
            "Fraction of the distance to the policy in each move, in (0, 1] (TRL, after TR-DPO: 0.6 every 512)."
        ),
    )
    interval: Steps = Field(default=512, description="Number of gradient updates between two moves, >= 1 (TRL: 512).")


Reference = Annotated[FrozenReference | SyncReference | MovingAverageReference, Field(discriminator="kind")]
AnyReference = Annotated[Absent | FrozenReference | SyncReference | MovingAverageReference, Field(discriminator="kind")]


def movement_of(reference: AnyReference) -> tuple[int | None, float]:
    """Return the interval of a reference policy's moves in updates, None for never, and their rate."""
    match reference:
        case SyncReference() as sync:
            return sync.interval, 1.0
        case MovingAverageReference() as average:
            return average.interval, average.rate
    return None, 1.0
