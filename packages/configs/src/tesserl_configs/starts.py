"""Kinds of common starts: trajectories of a group differ only by what the policy does."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tesserl_configs.base import Block, Capacity, Text

NUM_STARTS = "Starts that return in turn, >= 1; null: every one is new."


class SeedStarts(Block):
    """Each environment is reset with the same seed."""

    kind: Literal["seed"] = "seed"
    num_starts: Capacity | None = Field(default=None, description=NUM_STARTS)


class StateStarts(Block):
    """One environment is reset, and its state is set in the others: ALE, MuJoCo, or get_state and set_state."""

    kind: Literal["state"] = "state"
    num_starts: Capacity | None = Field(default=None, description=NUM_STARTS)


class LevelStarts(Block):
    """Each environment is reset to the same level, by an option of the task's reset."""

    kind: Literal["level"] = "level"
    option: Text = Field(default="level", description="Key of the reset option that names the level.")
    num_levels: Capacity = Field(description="Levels 0, 1, ... that return in turn, >= 1.")


Starts = Annotated[SeedStarts | StateStarts | LevelStarts, Field(discriminator="kind")]
