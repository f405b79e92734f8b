"""Many runs on one machine: a process for each, at most so many at a time, none lost to another one's failure."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tesserl_trainer.checkpoints.run_identity import LOG
from tesserl_trainer.signals import on_signals

ORDER = "sweep.json"
"""File in a sweep's directory: its ``tasks`` and ``variants`` in their order, in which a comparison shows them, and the
paths of the ``runs`` that it shall have."""

COMMAND = (sys.executable, "-m", "tesserl_trainer.cli")
"""Command that starts a run: this installation, whatever PATH says."""

POLL = 0.1
"""Seconds between two looks at the processes."""


@dataclass(frozen=True)
class Job:
    """One run that is to be started.

    Args:
        name: what a person calls it.
        arguments: of ``tesserl``.
        directory: of the run.
    """

    name: str
    arguments: tuple[str, ...]
    directory: Path

    @property
    def log(self) -> Path:
        """Path of its output."""
        return self.directory / LOG


@dataclass(frozen=True)
class Ended:
    """A process that has ended: its run, exit code, seconds, and whether it had been asked to stop."""

    job: Job
    code: int
    seconds: float
    stopped: bool


class SweepError(RuntimeError):
    """A sweep that cannot be run here now."""

    exit_code = 1


def run_jobs(
    next_job: Callable[[], Job | None],
    *,
    num_parallel: int,
    on_end: Callable[[Ended], None],
    on_note: Callable[[str], None],
    should_stop: Callable[[Job], bool] | None = None,
    stop_timeout: float = 60.0,
) -> int | None:
    """Run all jobs.

    The first SIGINT, SIGTERM or SIGHUP asks every run to stop, which writes a checkpoint; what has not stopped in time,
    or at a second signal, is named and killed.

    Args:
        next_job: return the run to start when there is room for one; None if there is none at that time.
        num_parallel: processes at a time, at least 1.
        on_end: told of every process that ends.
        on_note: told of what a person should know.
        should_stop: return whether a run that is training is to be stopped; asked again and again.
        stop_timeout: seconds that runs have to stop in.

    Returns:
        The signal that stopped it; None where all jobs have been run.
    """
    running, received = list[_Process](), list[int]()
    with on_signals(received.append):
        try:
            while True:
                while len(running) < num_parallel and not received and (job := next_job()) is not None:
                    running.append(_start(job))
                if not running:
                    break
                if received:
                    on_note(f"stopping {len(running)} runs; they write a checkpoint, up to {stop_timeout:g} s")
                    _stop(running, received, on_note, stop_timeout)
                if should_stop is not None:
                    for process in running:
                        if process.deadline is None and should_stop(process.job):
                            process.ask_to_stop(stop_timeout)
                _kill_overdue(running, on_note)
                _reap(running, on_end)
                time.sleep(POLL if running else 0)
        finally:  # whatever went wrong here: no process is left behind
            if running:
                _stop(running, received, on_note, stop_timeout)
    return received[0] if received else None


@dataclass
class _Process:
    """A run that is training."""

    job: Job
    popen: subprocess.Popen[bytes]
    began: float
    deadline: float | None = None
    """When it is killed; None if it has not been asked to stop."""

    def ask_to_stop(self, timeout: float) -> None:
        """Send SIGINT, once: a run that gets a second one does not write a checkpoint."""
        if self.deadline is None:
            self.deadline = time.monotonic() + timeout
            self.popen.send_signal(signal.SIGINT)


def _start(job: Job) -> _Process:
    """Start a process in a session of its own, so that Ctrl-C reaches it once, from here."""
    job.directory.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        popen = subprocess.Popen(  # noqa: S603 - our own command
            (*COMMAND, *job.arguments),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return _Process(job, popen, time.monotonic())


def _reap(running: list[_Process], on_end: Callable[[Ended], None]) -> None:
    for process in [process for process in running if process.popen.poll() is not None]:
        running.remove(process)
        seconds, stopped = time.monotonic() - process.began, process.deadline is not None
        on_end(Ended(process.job, int(process.popen.returncode), seconds, stopped))


def _stop(running: list[_Process], received: list[int], on_note: Callable[[str], None], timeout: float) -> None:
    """Asks all processes to stop and waits until they have."""
    for process in running:
        process.ask_to_stop(timeout)
    signals = len(received)
    while any(process.popen.poll() is None for process in running):
        _kill_overdue(running, on_note, now=len(received) > signals)
        time.sleep(POLL)


def _kill_overdue(running: list[_Process], on_note: Callable[[str], None], *, now: bool = False) -> None:
    """Kill processes that have not stopped in time, or those that have not stopped yet."""
    for process in running:
        overdue = process.deadline is not None and (now or time.monotonic() > process.deadline)
        if overdue and process.popen.poll() is None:
            job, pid = process.job, process.popen.pid
            on_note(f"{job.name} (process {pid}) has not stopped and is killed; log: {job.log}")
            os.killpg(pid, signal.SIGKILL)  # with the workers of its environments
            process.popen.wait()
