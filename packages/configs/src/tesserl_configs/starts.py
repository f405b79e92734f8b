"""Common starts of a group, whose trajectories then differ only by the actions of the policy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tesserl_configs.base import Block, Capacity, OpenFraction, Text


class RepeatedStarts(Block):
    """Start from a reset that is repeated for all trajectories of a group."""

    kind: Literal["seed", "state"] = Field(
        default="seed",
        description=(
            "seed: reset each environment with the same seed; state: reset one environment and copy its state to the "
            "others (ALE, MuJoCo, or get_state and set_state)."
        ),
    )
    num_starts: Capacity | None = Field(
        default=None, description="Number of different starts, used in turn, >= 1; null: every start is new."
    )


class LevelStarts(Block):
    """Reset each environment to the same level, by an option of the task's reset."""

    kind: Literal["level"] = "level"
    option: Text = Field(default="level", description="Key of the reset option that names the level.")
    num_levels: Capacity = Field(description="Number of levels 0, 1, ..., used in turn, >= 1.")


class VisitedStarts(Block):
    """Start a part of the groups in states that the policy visited (vine of TRPO, arXiv:1502.05477; VinePPO).

    Each such state is reached by a reset with the seed of a recent trajectory and a replay of its first actions; the
    task must depend on seed and actions alone. VinePPO is Kazemnejad et al. 2024, arXiv:2410.01679.
    """

    kind: Literal["visited"] = "visited"
    fraction: OpenFraction = Field(
        default=0.5,
        description=(
            "Fraction of the groups that start in visited states, in (0, 1); the others start from new resets, as do "
            "all in the first iteration."
        ),
    )


Starts = Annotated[RepeatedStarts | LevelStarts, Field(discriminator="kind")]
BranchingStarts = Annotated[RepeatedStarts | LevelStarts | VisitedStarts, Field(discriminator="kind")]
