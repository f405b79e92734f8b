"""The reference policy that preference optimisation and KL penalties compare with; checkpoints hold it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tesserl_configs.base import Absent, Block, FractionAboveZero, Steps


class FrozenReference(Block):
    """The policy at the start, or what pretraining made of it (DeepSeekMath, DPO)."""

    kind: Literal["frozen"] = "frozen"


class SyncReference(Block):
    """Becomes a copy of the policy at times (TR-DPO, Gorbatovski et al. 2024, arXiv:2404.09656, hard update)."""

    kind: Literal["sync"] = "sync"
    interval: Steps = Field(
        default=512, description="Gradient updates from one copy to the next, >= 1 (TRL, after TR-DPO: 512)."
    )


class MovingAverageReference(Block):
    """Moves towards the policy: reference += rate (policy - reference) (TR-DPO, soft update)."""

    kind: Literal["moving_average"] = "moving_average"
    rate: FractionAboveZero = Field(
        default=0.6, description="Share of the policy in each move, in (0, 1] (TRL, after TR-DPO: 0.6 every 512)."
    )
    interval: Steps = Field(default=512, description="Gradient updates from one move to the next, >= 1 (TRL: 512).")


Reference = Annotated[FrozenReference | SyncReference | MovingAverageReference, Field(discriminator="kind")]
AnyReference = Annotated[Absent | FrozenReference | SyncReference | MovingAverageReference, Field(discriminator="kind")]


def movement_of(reference: AnyReference) -> tuple[int | None, float]:
    """Return after how many updates a reference policy moves, None for never, and how far it moves."""
    match reference:
        case SyncReference() as sync:
            return sync.interval, 1.0
        case MovingAverageReference() as average:
            return average.interval, average.rate
    return None, 1.0
