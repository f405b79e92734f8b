"""Connect to a Ray cluster, or start one on this machine for the duration of a run."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from tesserl_environments import WorkerError

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no usage reports
    "RAY_raylet_start_wait_time_s": "300",  # a busy machine takes longer than Ray's default
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # avoids a warning about a future change
}
"""Environment variables of a local cluster; variables that are set already keep their values."""

PREFIX = "tesserl-ray-"
"""Prefix of the directory name of a local cluster."""

SHORT = Path("/tmp")  # noqa: S108 - the directory made in it is a new one
"""Parent of Ray's directory, short because a socket's path has at most 107 bytes and Ray uses about 70."""


@contextmanager
def ray_cluster(address: str | None, num_cpus: int, *, option: str = "collectors.address") -> Iterator[None]:
    """Connect to a Ray cluster for a ``with`` block; a local cluster is started before and stopped afterwards.

    If the process is connected already, the connection stays.

    Args:
        address: address of a cluster, or ``"auto"`` for the one that runs on this machine; None starts one.
        num_cpus: number of actors, or of CPUs for tasks, that a local cluster runs at the same time.
        option: name of the option with the address, for messages.

    Raises:
        WorkerError: there is no such cluster, or no cluster can be started.
    """
    if ray.is_initialized():
        yield
        return
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    directory = None
    try:
        if address is None:
            directory = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=SHORT if SHORT.is_dir() else None)
            _connect(option, address="local", num_cpus=num_cpus, include_dashboard=False, _temp_dir=directory)
        else:
            _connect(option, address=address)
        yield
    finally:
        ray.shutdown()
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)


def require_cpus(workers: int) -> None:
    """Reject a cluster with too few CPUs, on which actors would wait until their timeout.

    Args:
        workers: number of actors; each takes one CPU.

    Raises:
        WorkerError: the cluster has fewer CPUs.
    """
    found = int(ray.cluster_resources().get("CPU", 0))
    if found < workers:
        raise WorkerError(
            f"collectors.workers: expected at most the {found} CPUs of the cluster, got {workers}; lower it, or add "
            "machines with `ray start --address` before the run"
        )


def _connect(option: str, **options: Any) -> None:
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **options)
    except Exception as error:  # Ray raises errors of many types
        lines = str(error).strip().splitlines() or [""]
        where = "on this machine" if options["address"] == "local" else f"at {options['address']}"
        raise WorkerError(
            f"{option}: no cluster of Ray {where} ({type(error).__name__}: {lines[0]}); start one with "
            f"`ray start --head`, or leave out {option}"
        ) from error
