"""Check and open the launcher that ``--launcher`` selects for the runs of a sweep or a search."""

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tesserl_configs import RunConfig
from tesserl_configs.launchers import Launcher as Options
from tesserl_configs.launchers import LocalLauncher, RayLauncher, SlurmLauncher
from tesserl_trainer.sweep.launching import Launcher
from tesserl_trainer.sweep.processes import ProcessLauncher
from tesserl_trainer.usage import ArgumentError


def check_launcher(options: Options) -> None:
    """Refuse a launcher whose extra is not installed, and Slurm on a machine that cannot submit jobs."""
    for block, module in ((RayLauncher, "ray"), (SlurmLauncher, "submitit")):
        if isinstance(options, block) and importlib.util.find_spec(module) is None:
            raise ArgumentError(f'--launcher {options.kind} needs {module}; install "tesserl-trainer[{options.kind}]"')
    if isinstance(options, SlurmLauncher) and options.cluster == "slurm" and shutil.which("sbatch") is None:
        raise ArgumentError(
            "--launcher slurm: there is no sbatch on this machine; run the command where jobs are submitted, or try "
            "it here with --launcher-option cluster=local"
        )


def default_parallel(configs: Iterable[RunConfig]) -> int:
    """Return the number of runs that fit on the cores available to this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(config.num_threads for config in configs))


def jobs_at_a_time(options: Options, num_parallel: int | None, configs: Iterable[RunConfig]) -> int | None:
    """Return the limit of runs submitted at once; None submits all, for launchers with their own queue."""
    if isinstance(options, LocalLauncher):
        return num_parallel or default_parallel(configs)
    return num_parallel if isinstance(options, RayLauncher) else None


@contextmanager
def open_launcher(
    options: Options,
    directory: Path,
    configs: Sequence[RunConfig],
    *,
    num_parallel: int | None,
    on_note: Callable[[str], None],
) -> Iterator[Launcher]:
    """Open the launcher that trains the runs of a sweep or a search."""
    num_threads = max((config.num_threads for config in configs), default=1)
    match options:
        case LocalLauncher():
            yield ProcessLauncher()
        case RayLauncher():
            from tesserl_collectors.ray_cluster import ray_cluster
            from tesserl_trainer.sweep import ray_tasks

            num_cpus = num_threads * (num_parallel or default_parallel(configs))
            with ray_cluster(options.address, num_cpus, option="--launcher-option address"):
                yield ray_tasks.RayLauncher(options, directory)
        case SlurmLauncher():
            from tesserl_trainer.sweep import slurm

            yield slurm.SlurmLauncher(
                options,
                directory,
                name=f"tesserl-{directory.name}",
                num_parallel=num_parallel,
                num_threads=num_threads,
                on_note=on_note,
            )
