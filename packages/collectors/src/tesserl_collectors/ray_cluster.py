"""A cluster of Ray: one that is there, or one on this machine for the time of a run."""

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
    "RAY_USAGE_STATS_ENABLED": "0",  # tells nobody
    "RAY_raylet_start_wait_time_s": "300",  # a busy machine takes longer than Ray's default
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # without it, the first actor is a warning about a coming change
}
"""Environment variables of a local cluster; one that is set already stays."""

PREFIX = "tesserl-ray-"
"""Begins the name of the directory of a local cluster."""

SHORT = Path("/tmp")  # noqa: S108 - the directory made in it is a new one
"""Parent of Ray's directory: the path of a socket has at most 107 bytes, of which Ray takes about 70."""


@contextmanager
def ray_cluster(address: str | None, num_cpus: int, *, option: str = "collectors.address") -> Iterator[None]:
    """Connect to a cluster for the time of a ``with`` block; a local one is started before it and stopped afterwards.

    A process that is connected already stays so.

    Args:
        address: of a cluster, or ``"auto"`` for the one that runs on this machine; None starts one.
        num_cpus: actors, or CPUs of tasks, that a local cluster runs at the same time.
        option: that has the address, for messages.

    Raises:
        WorkerError: there is no such cluster, or none can be started.
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
    """Refuse a cluster on which actors would wait for a CPU until they are late.

    Args:
        workers: actors, each of which takes one CPU.

    Raises:
        WorkerError: the cluster has fewer.
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
    except Exception as error:  # Ray has errors of many types
        lines = str(error).strip().splitlines() or [""]
        where = "on this machine" if options["address"] == "local" else f"at {options['address']}"
        raise WorkerError(
            f"{option}: no cluster of Ray {where} ({type(error).__name__}: {lines[0]}); start one with "
            f"`ray start --head`, or leave out {option}"
        ) from error
