"""The local launcher: one process per run."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tesserl_trainer.sweep.jobs import Ended, Job, Submitted, begin, start

POLL = 0.1
"""Seconds between two checks of the processes."""


class ProcessLauncher:
    """Trains runs in local processes, which end with this process."""

    def __init__(self) -> None:
        self._running: dict[str, Submitted[subprocess.Popen[bytes]]] = {}
        self._ended: list[Ended] = []

    @property
    def jobs(self) -> Sequence[Job]:
        """Return the jobs whose end was not returned yet."""
        return [*(process.job for process in self._running.values()), *(ended.job for ended in self._ended)]

    def submit(self, jobs: Sequence[Job]) -> None:
        """Start processes."""
        for job in jobs:
            arguments = begin(job)
            if arguments is None:
                self._ended.append(Ended(job, 0, 0.0, stopped=False))
                continue
            self._running[job.name] = Submitted(job, start(job, arguments))

    def wait(self, timeout: float) -> list[Ended]:
        """Return the jobs whose processes have ended."""
        deadline = time.monotonic() + timeout
        while True:
            for process in [each for each in self._running.values() if each.handle.poll() is not None]:
                del self._running[process.job.name]
                self._ended.append(process.ended(int(process.handle.returncode)))
            if self._ended or time.monotonic() >= deadline:
                ended, self._ended = self._ended, []
                return ended
            time.sleep(min(POLL, timeout))

    def stop(self, job: Job) -> None:
        """Send SIGINT."""
        if (process := self._running.get(job.name)) is not None:
            process.stopped = True
            process.handle.send_signal(signal.SIGINT)

    def kill(self, job: Job) -> None:
        """Kill a process with its environment workers."""
        process = self._running.get(job.name)
        if process is not None and process.handle.poll() is None:
            os.killpg(process.handle.pid, signal.SIGKILL)
            process.handle.wait()

    def where(self, job: Job) -> str:
        """Return the id of a process."""
        return f"process {self._running[job.name].handle.pid}"

    def holds(self, run_dir: Path) -> bool:  # noqa: ARG002
        """Return False: processes do not outlive the sweep that started them."""
        return False
