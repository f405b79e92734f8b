"""Code of a job on another machine: it trains a run, stops it when asked, and continues it after a time limit."""

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
"""Seconds between two looks at the process and at the file that asks it to stop."""

STOPPED = 128 + signal.SIGINT
"""Exit code of a job that was asked to stop before it began."""


class TrainingTask:
    """Trains one run in a process, from the state that its directory has at that time.

    Args:
        job: the run; its paths are absolute, in a file system that all machines share.
        place: directory to which relative paths of the configuration belong.
        stop: file that asks the run to stop.
        patience: seconds that the run has to write a checkpoint at a time limit.
        command: starts ``tesserl``; None: that of the process that submits.
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
        finally:  # whatever ends this job: it leaves no process
            self._pid = None
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def checkpoint(self) -> "DelayedSubmission":
        """Stop the run with a checkpoint and return the job that continues it; submitit calls it at a time limit."""
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

        It does not hear the signal of a time limit, which may reach all processes of a job, and hears SIGINT, which the
        workers of Ray block.
        """
        before = signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGUSR1, signal.SIGUSR2})
        try:
            process = jobs.start(self.job, arguments, command=self.command, place=self.place)
            self._pid = process.pid
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return process


def _has_ended(pid: int) -> bool:
    """Return whether a process has ended, without taking its exit code from `subprocess`, which waits for it too."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True
