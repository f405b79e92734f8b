"""Launchers of sweeps and searches: the machines where runs train, and the options of each kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from tesserl_configs.base import Block, Count, NonNegative, Positive, Text, Threads, ThreadsFromZero
from tesserl_configs.errors import ConfigError
from tesserl_configs.messages import problems_of
from tesserl_configs.overrides import apply_override

OPTION = "--launcher-option"


class LocalLauncher(Block):
    """Processes of this machine."""

    kind: Literal["local"] = "local"


class RayLauncher(Block):
    """Tasks of a Ray cluster, whose machines share the directory of the runs (extra ray of the trainer)."""

    kind: Literal["ray"] = "ray"
    address: Text | None = Field(
        default=None,
        description="Address of the cluster, or auto for the one on this machine; null starts one for the sweep.",
    )
    gpus: NonNegative = Field(
        default=0.0, description="Number of GPUs of each run, >= 0; runs can share a GPU by fractions."
    )


class SlurmLauncher(Block):
    """Jobs of Slurm, on machines that share the directory of the runs (extra slurm of the trainer)."""

    kind: Literal["slurm"] = "slurm"
    partition: Text | None = Field(default=None, description="Partition of the jobs; null: Slurm's default.")
    account: Text | None = Field(default=None, description="Account of the jobs; null: Slurm's default.")
    qos: Text | None = Field(default=None, description="Quality of service of the jobs; null: Slurm's default.")
    constraint: Text | None = Field(default=None, description="Features that a node must have; null: none.")
    time_limit: Count = Field(
        default=240, description="Time limit of a job, in minutes, >= 1; a job that reaches it is queued again."
    )
    timeouts: Count = Field(
        default=100, description="Largest number of times that a job may reach its time limit, >= 1."
    )
    signal_delay: Count = Field(
        default=90, description="Seconds before the time limit at which a run writes its checkpoint, >= 1."
    )
    cpus: Threads | None = Field(
        default=None, description="Number of CPUs of a run, >= 1; null: the largest num_threads."
    )
    gpus: ThreadsFromZero = Field(default=0, description="Number of GPUs of a run, >= 0.")
    memory: Positive | None = Field(default=None, description="Memory of a run, in GB, > 0; null: Slurm's default.")
    setup: Annotated[tuple[Text, ...], Field(max_length=100)] = Field(
        default=(), description="Shell commands to execute before each run, such as module load cuda."
    )
    cluster: Literal["slurm", "local"] = Field(
        default="slurm",
        description=(
            "slurm: submit the jobs to Slurm; local: run the same jobs as processes of this machine, to try them out."
        ),
    )


Launcher = LocalLauncher | RayLauncher | SlurmLauncher
LAUNCHERS: dict[str, type[Launcher]] = {"local": LocalLauncher, "ray": RayLauncher, "slurm": SlurmLauncher}
"""Blocks of the launchers, by their kind."""


def read_launcher(kind: str, options: Iterable[str] = ()) -> Launcher:
    """Read the options of a launcher.

    Args:
        kind: ``"local"``, ``"ray"`` or ``"slurm"``.
        options: ``KEY=VALUE`` each, the value as YAML.

    Raises:
        ConfigError: there is no such option, or a value is out of its range.
    """
    data: dict[str, Any] = {}
    for option in options:
        apply_override(data, option, name=OPTION)
    block = LAUNCHERS[kind]
    try:
        launcher = block.model_validate(data | {"kind": kind})
    except ValidationError as error:
        problems = problems_of(error, data, block)
        raise ConfigError(*(f"{OPTION} {problem.path}: {problem.message}" for problem in problems)) from error
    if isinstance(launcher, SlurmLauncher) and launcher.signal_delay >= 60 * launcher.time_limit:
        raise ConfigError(
            f"{OPTION} signal_delay: expected less than the seconds of time_limit ({60 * launcher.time_limit}), got "
            f"{launcher.signal_delay}"
        )
    return launcher
