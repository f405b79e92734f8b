"""The Slurm launcher: runs are jobs of an array; submitit submits them and requeues them at a time limit."""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import submitit

from tesserl_configs.launchers import SlurmLauncher as Options
from tesserl_storage.errors import StorageError
from tesserl_storage.sealed_json import read_json
from tesserl_storage.whole_files import write_json
from tesserl_trainer.sweep.jobs import Ended, Job, Submitted
from tesserl_trainer.sweep.tasks import STOPPED, TrainingTask

FOLDER = "submitit"
"""Subdirectory of a sweep's directory for submitit's files and the job ids of the runs."""

POLL = 0.5
"""Seconds between two checks of the jobs; submitit queries Slurm only once a minute."""


class SlurmLauncher:
    """Trains runs as Slurm jobs; they outlive a killed sweep, and the next call waits for them."""

    def __init__(
        self,
        options: Options,
        directory: Path,
        *,
        name: str,
        num_parallel: int | None,
        num_threads: int,
        on_note: Callable[[str], None],
    ) -> None:
        self._options, self._on_note = options, on_note
        self._job_class = submitit.SlurmJob if options.cluster == "slurm" else submitit.LocalJob
        self._folder = (directory / FOLDER).resolve()
        self._folder.mkdir(parents=True, exist_ok=True)
        limits = {f"{options.cluster}_max_num_timeout": options.timeouts}
        self._executor = submitit.AutoExecutor(self._folder / "jobs", cluster=options.cluster, **limits)
        self._executor.update_parameters(**_parameters(options, name, num_parallel, num_threads))
        self._running: dict[str, Submitted[Any]] = {}

    @property
    def jobs(self) -> Sequence[Job]:
        """Return the jobs whose end was not returned yet."""
        return [submitted.job for submitted in self._running.values()]

    def holds(self, run_dir: Path) -> bool:
        """Return whether an earlier submitted job is training or will train a run."""
        return self._left(run_dir) is not None

    def submit(self, jobs: Sequence[Job]) -> None:
        """Submit runs as one array, except runs with an unfinished job from before."""
        new = list[Job]()
        for job in jobs:
            self._stop_file(job).unlink(missing_ok=True)
            if (handle := self._left(job.directory)) is None:
                new.append(job)
                continue
            self._on_note(f"{job.name}: waiting for job {handle.job_id}, which was submitted before")
            self._running[job.name] = Submitted(job, handle)
        if not new:
            return
        with self._executor.batch():
            handles = [self._executor.submit(self._task(job)) for job in new]
        for job, handle in zip(new, handles, strict=True):
            self._running[job.name] = Submitted(job, handle)
            record = self._record(job.directory)
            record.parent.mkdir(parents=True, exist_ok=True)
            write_json(record, {"job": handle.job_id})

    def wait(self, timeout: float) -> list[Ended]:
        """Return the jobs that have ended; a requeued job has not."""
        deadline = time.monotonic() + timeout
        while True:
            ended = [each for each in self._running.values() if _is_done(each.handle)]
            if ended or time.monotonic() >= deadline:
                break
            time.sleep(min(POLL, timeout))
        for each in ended:
            del self._running[each.job.name]
        return [each.ended(self._code(each)) for each in ended]

    def stop(self, job: Job) -> None:
        """Write the file that asks a job to stop its run; cancel the job if it is still pending."""
        if (submitted := self._running.get(job.name)) is None:
            return
        submitted.stopped = True
        self._stop_file(job).touch()
        if self._options.cluster == "slurm":
            subprocess.run(["scancel", "--state=PENDING", submitted.handle.job_id], check=False)  # noqa: S603, S607

    def kill(self, job: Job) -> None:
        """Cancel a job."""
        if (submitted := self._running.get(job.name)) is not None:
            submitted.stopped = True
            submitted.handle.cancel(check=False)

    def where(self, job: Job) -> str:
        """Return the id of a job."""
        return f"job {self._running[job.name].handle.job_id}"

    def _task(self, job: Job) -> TrainingTask:
        patience = max(self._options.signal_delay - 10, self._options.signal_delay / 2)
        return TrainingTask(job.absolute(), Path.cwd(), self._stop_file(job), patience)

    def _stop_file(self, job: Job) -> Path:
        return self._record(job.directory).with_suffix(".stop")

    def _record(self, run_dir: Path) -> Path:
        """Return the path of the file with the id of a run's job."""
        return self._folder / "runs" / f"{run_dir.resolve().relative_to(self._folder.parent)}.json"

    def _left(self, run_dir: Path) -> Any | None:
        """Return the unfinished job of a run from before; None if there is none."""
        try:
            number = str(read_json(self._record(run_dir))["job"])
        except (StorageError, OSError, KeyError, TypeError):
            return None
        handle = self._job_class(self._folder / "jobs", number)
        return None if _is_done(handle) else handle

    def _code(self, submitted: Submitted[Any]) -> int:
        """Return the exit code of a job; 1 if it has none, with the reason in the log of the run."""
        handle = submitted.handle
        if not handle.paths.result_pickle.exists() and submitted.stopped:
            return STOPPED
        try:
            return int(handle.result())
        except Exception as error:  # noqa: BLE001 - submitit raises the error of the job, of any type
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            with suppress(OSError), submitted.job.log.open("a", encoding="utf-8") as log:
                log.write(f"job {handle.job_id}: {reason}\n")
            return 1


def _parameters(options: Options, name: str, num_parallel: int | None, num_threads: int) -> dict[str, Any]:
    """Return the options under submitit's names, without those left to Slurm's defaults."""
    given = {
        "name": name,
        "timeout_min": options.time_limit,
        "cpus_per_task": options.cpus or num_threads,
        "gpus_per_node": options.gpus or None,
        "mem_gb": options.memory,
        "slurm_partition": options.partition,
        "slurm_account": options.account,
        "slurm_qos": options.qos,
        "slurm_constraint": options.constraint,
        "slurm_signal_delay_s": options.signal_delay,
        "slurm_setup": list(options.setup) or None,
        "slurm_array_parallelism": num_parallel,
    }
    return {key: value for key, value in given.items() if value is not None}


def _is_done(handle: Any) -> bool:
    """Return whether a job has ended; check a local job of another process by its process id."""
    if handle.paths.result_pickle.exists():
        return True
    process = getattr(handle, "_process", handle)
    if process is not None:
        return bool(handle.done())
    try:
        command = Path(f"/proc/{handle.job_id}/cmdline").read_bytes()
    except OSError:
        with suppress(OSError):
            os.kill(int(handle.job_id), 0)
            return Path("/proc").exists()  # without /proc the process id cannot be verified
        return True
    return b"submitit" not in command
