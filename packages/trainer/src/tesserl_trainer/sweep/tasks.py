"""Code of a job on a cluster: train a run, stop it on request, and continue it after a time limit."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tesserl_trainer.sweep import jobs
from tesserl_trainer.sweep.jobs import Job

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

POLL = 0.5
"""Seconds between two checks of the process and of the file that asks it to stop."""

STOPPED = 128 + signal.SIGINT
"""Exit code of a job that was asked to stop before it began."""


class TrainingTask:
    """Trains one run in a process, from the state of its directory when the job starts.

    Args:
        job: the run, with absolute paths in a file system that all machines share.
        place: directory from which relative paths of the configuration start.
        stop: file whose existence asks the run to stop.
        patience: seconds in which the run must write a checkpoint at a time limit.
        command: command that starts ``tesserl``; None: the command of the submitting process.
    """

    def __init__(
        self, job: Job, place: Path, stop: Path, patience: float, command: tuple[str, ...] | None = None
    ) -> None:
        self.job, self.place, self.stop, self.patience = job, place, stop, patience
        self.command = command or jobs.COMMAND
        self._pid: int | None = None

    def __call__(self) -> int:
        """Train; return the exit code of ``tesserl``."""
        if self.stop.exists():
            return STOPPED
        if (arguments := jobs.begin(self.job)) is None:
            return 0
        process = self._start(arguments)
        asked = False
        try:
            while (code := process.poll()) is None:
                if not asked and self.stop.exists():
                    asked = True
                    process.send_signal(signal.SIGINT)
                time.sleep(POLL)
            return int(code)
        finally:  # however this job ends, leave no process behind
            self._pid = None
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def checkpoint(self) -> "DelayedSubmission":
        """Stop the run with a checkpoint and return the job that continues it; submitit calls this at a time limit."""
        from submitit.helpers import DelayedSubmission

        if (pid := self._pid) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
            deadline = time.monotonic() + self.patience
            while time.monotonic() < deadline and not _has_ended(pid):
                time.sleep(0.1)
        return DelayedSubmission(TrainingTask(self.job, self.place, self.stop, self.patience, self.command))

    def _start(self, arguments: tuple[str, ...]) -> subprocess.Popen[bytes]:
        """Start the process.

        The process ignores the time limit's signal, which may reach all processes of a job. It unblocks SIGINT, which
        Ray's workers block.
        """
        before = signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGUSR1, signal.SIGUSR2})
        try:
            process = jobs.start(self.job, arguments, command=self.command, place=self.place)
            self._pid = process.pid
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return process


def _has_ended(pid: int) -> bool:
    """Return whether a process has ended; leave its exit code for `subprocess`."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True
