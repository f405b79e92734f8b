"""``collectors:``, the processes that step the environments."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tesserl_configs.base import Block, CountFromZero, Delay, Seconds, StepsFromZero, Text, Threads

_WORKERS = "Worker processes, >= 1; environment.num_envs must be a multiple of it."
_MAX_LAG = (
    "Updates by which the weights that acted may be older than those that learn, with mode async; what is older is "
    "refused, and workers wait where it would become so."
)


class LocalCollectors(Block):
    """Act and learn in turns, in one process."""

    kind: Literal["local"] = "local"


class ProcessCollectors(Block):
    """Act in worker processes of this machine.

    Each has a part of the environments, a copy of the policy, and one thread.
    """

    kind: Literal["process"] = "process"
    workers: Threads = Field(default=1, description=_WORKERS)
    delay: Delay = Field(
        default=1,
        description=(
            "Rounds by which the weights that act are older than those of acting and learning in turns: 0 or 1. With 1 "
            "the workers collect the next round while the learner learns from this one."
        ),
    )
    mode: Literal["fixed", "async"] = Field(
        default="fixed",
        description=(
            "`fixed`: rounds of all workers, the same in every run; `async`, of iqn: chunks of one worker as they "
            "arrive, whatever delay is."
        ),
    )
    max_lag: StepsFromZero = Field(default=400, description=_MAX_LAG)


class RayCollectors(Block):
    """Act in worker processes on the machines of a Ray cluster; a worker that is lost is replaced.

    Each has a part of the environments, a copy of the policy, and one thread.
    """

    kind: Literal["ray"] = "ray"
    workers: Threads = Field(default=1, description=_WORKERS)
    mode: Literal["sync", "async"] = Field(
        default="sync",
        description=(
            "`sync`, of ppo, grpo, dpo and cpl: rounds of all workers, the same in every run; `async`, of iqn: chunks "
            "of one worker as they arrive."
        ),
    )
    max_lag: StepsFromZero = Field(default=400, description=_MAX_LAG)
    start_timeout: Seconds = Field(
        default=300.0, description="Seconds for a worker to start, and for its first answer, above 0."
    )
    worker_timeout: Seconds = Field(
        default=60.0,
        description=(
            "Seconds for a whole answer, a round or a chunk, after which a worker is replaced, above 0; a worker sends "
            "nothing before it."
        ),
    )
    max_restarts: CountFromZero = Field(
        default=100, description="Workers that are replaced during a run, >= 0; one more is an error."
    )
    address: Text | None = Field(
        default=None,
        description=(
            "Address of the cluster, or `auto` for the one that runs on this machine; null: one on this machine, for "
            "the time of the run."
        ),
    )


Collectors = Annotated[LocalCollectors | ProcessCollectors | RayCollectors, Field(discriminator="kind")]
