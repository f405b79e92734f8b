"""``collectors:``, the processes that step the environments."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tesserl_configs.base import Block, CountFromZero, Delay, Seconds, StepsFromZero, Text, Threads

_WORKERS = "Number of worker processes, >= 1; environment.num_envs must be a multiple of it."
_MAX_LAG = (
    "Largest age of the weights that workers act with in mode async, in gradient updates, >= 0. Workers wait "
    "before they would exceed it, and the learner refuses older chunks."
)


class LocalCollectors(Block):
    """Act and learn in turns, in one process."""

    kind: Literal["local"] = "local"


class ProcessCollectors(Block):
    """Act in worker processes of this machine.

    Each worker has a part of the environments, a copy of the policy, and one thread.
    """

    kind: Literal["process"] = "process"
    workers: Threads = Field(default=1, description=_WORKERS)
    delay: Delay = Field(
        default=1,
        description=(
            "Number of rounds by which the acting weights lag behind, 0 or 1. With 0 acting and learning alternate; "
            "with 1 the workers collect the next round while the learner learns from this one."
        ),
    )
    mode: Literal["fixed", "async"] = Field(
        default="fixed",
        description=(
            "`fixed`: collect rounds from all workers, the same in every run; `async`, for iqn only: take chunks from "
            "single workers as they arrive, and ignore delay."
        ),
    )
    max_lag: StepsFromZero = Field(default=400, description=_MAX_LAG)


class RayCollectors(Block):
    """Act in worker processes on the machines of a Ray cluster; a lost worker is replaced.

    Each worker has a part of the environments, a copy of the policy, and one thread.
    """

    kind: Literal["ray"] = "ray"
    workers: Threads = Field(default=1, description=_WORKERS)
    mode: Literal["sync", "async"] = Field(
        default="sync",
        description=(
            "`sync`, for ppo, grpo, dpo and cpl: collect rounds from all workers, the same in every run; `async`, for "
            "iqn: take chunks from single workers as they arrive."
        ),
    )
    max_lag: StepsFromZero = Field(default=400, description=_MAX_LAG)
    start_timeout: Seconds = Field(
        default=300.0, description="Seconds to wait for a worker to start, and for its first answer, > 0."
    )
    worker_timeout: Seconds = Field(
        default=60.0,
        description=(
            "Seconds to wait for a round or chunk before the worker is replaced, > 0. A worker sends nothing until "
            "its whole round or chunk is done."
        ),
    )
    max_restarts: CountFromZero = Field(
        default=100, description="Largest number of workers replaced during a run, >= 0; the run fails at the next one."
    )
    address: Text | None = Field(
        default=None,
        description=(
            "Address of the Ray cluster, or `auto` for the one running on this machine; null starts one on this "
            "machine for the run."
        ),
    )


Collectors = Annotated[LocalCollectors | ProcessCollectors | RayCollectors, Field(discriminator="kind")]
