"""``collectors:``, the processes that step the environments."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tesserl_configs.base import Block, Delay, Threads


class LocalCollectors(Block):
    """Act and learn in turns, in one process."""

    kind: Literal["local"] = "local"


class ProcessCollectors(Block):
    """Act in worker processes of this machine.

    Each has a part of the environments, a copy of the policy, and one thread.
    """

    kind: Literal["process"] = "process"
    workers: Threads = Field(
        default=1, description="Worker processes, >= 1; environment.num_envs must be a multiple of it."
    )
    delay: Delay = Field(
        default=1,
        description=(
            "Rounds by which the weights that act are older than those of acting and learning in turns: 0 or 1. With 1 "
            "the workers collect the next round while the learner learns from this one."
        ),
    )


Collectors = Annotated[LocalCollectors | ProcessCollectors, Field(discriminator="kind")]
