"""The Ray launcher: each run is a task of a cluster and reserves one CPU per thread."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from tesserl_configs.launchers import RayLauncher as Options
from tesserl_trainer.sweep.jobs import Ended, Job, Submitted
from tesserl_trainer.sweep.tasks import STOPPED, TrainingTask

FOLDER = "ray"
"""Subdirectory of a sweep's directory for files that ask runs to stop."""


class RayLauncher:
    """Trains runs as tasks of the connected cluster; the tasks end with this process."""

    def __init__(self, options: Options, directory: Path) -> None:
        self._options, self._directory = options, directory.resolve()
        self._running: dict[str, Submitted[Any]] = {}

    @property
    def jobs(self) -> Sequence[Job]:
        """Return the jobs whose end was not returned yet."""
        return [submitted.job for submitted in self._running.values()]

    def submit(self, jobs: Sequence[Job]) -> None:
        """Submit tasks; they start when CPUs become free."""
        for job in jobs:
            stop = self._stop_file(job)
            stop.parent.mkdir(parents=True, exist_ok=True)
            stop.unlink(missing_ok=True)
            task = TrainingTask(job.absolute(), Path.cwd(), stop, patience=0.0)
            resources = {"num_cpus": job.num_threads, "num_gpus": self._options.gpus}
            remote = ray.remote(max_retries=0, **resources)(_train)
            self._running[job.name] = Submitted(job, remote.options(name=job.name).remote(task))

    def wait(self, timeout: float) -> list[Ended]:
        """Return the jobs whose tasks have ended."""
        references = {submitted.handle: submitted for submitted in self._running.values()}
        if not references:
            return []
        if ray.wait(list(references), num_returns=1, timeout=timeout)[0]:
            ready, _ = ray.wait(list(references), num_returns=len(references), timeout=0)
        else:
            ready = []
        ended = [references[reference] for reference in ready]
        for each in ended:
            del self._running[each.job.name]
        return [each.ended(_code(each)) for each in ended]

    def stop(self, job: Job) -> None:
        """Write the file that asks a task to stop its run."""
        if (submitted := self._running.get(job.name)) is not None:
            submitted.stopped = True
            self._stop_file(job).touch()

    def kill(self, job: Job) -> None:
        """Kill the process of a task; the run ends with it."""
        if (submitted := self._running.get(job.name)) is not None:
            submitted.stopped = True
            ray.cancel(submitted.handle, force=True)

    def where(self, job: Job) -> str:
        """Return the name of a task."""
        return f"task {job.name} of Ray"

    def holds(self, run_dir: Path) -> bool:  # noqa: ARG002
        """Return False: tasks do not outlive the process that submitted them."""
        return False

    def _stop_file(self, job: Job) -> Path:
        return self._directory / FOLDER / f"{job.directory.resolve().relative_to(self._directory)}.stop"


def _train(task: TrainingTask) -> int:
    return task()


def _code(submitted: Submitted[Any]) -> int:
    """Return the exit code of a job; 1 if its task was lost, with the reason in the log of the run."""
    try:
        return int(ray.get(submitted.handle))
    except Exception as error:  # noqa: BLE001 - Ray raises errors of many types
        if submitted.stopped:
            return STOPPED
        reason = (str(error).strip().splitlines() or [""])[0]
        submitted.job.directory.mkdir(parents=True, exist_ok=True)
        with submitted.job.log.open("a", encoding="utf-8") as log:
            log.write(f"the task of Ray was lost ({type(error).__name__}: {reason})\n")
        return 1
