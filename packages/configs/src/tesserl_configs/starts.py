"""Kinds of common starts: trajectories of a group differ only by what the policy does."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tesserl_configs.base import Block, Capacity, Text


class RepeatedStarts(Block):
    """Starts that repeat a reset."""

    kind: Literal["seed", "state"] = Field(
        default="seed",
        description=(
            "seed: each environment is reset with the same seed; state: one environment is reset, and its state is set "
            "in the others (ALE, MuJoCo, or get_state and set_state)."
        ),
    )
    num_starts: Capacity | None = Field(
        default=None, description="Starts that return in turn, >= 1; null: every one is new."
    )


class LevelStarts(Block):
    """Each environment is reset to the same level, by an option of the task's reset."""

    kind: Literal["level"] = "level"
    option: Text = Field(default="level", description="Key of the reset option that names the level.")
    num_levels: Capacity = Field(description="Levels 0, 1, ... that return in turn, >= 1.")


Starts = Annotated[RepeatedStarts | LevelStarts, Field(discriminator="kind")]
