"""Many runs on one machine: a process for each, at most so many at a time, none lost to another one's failure."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
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
    jobs: Sequence[Job],
    *,
    num_parallel: int,
    on_end: Callable[[Ended], None],
    on_note: Callable[[str], None],
    stop_timeout: float = 60.0,
) -> int | None:
    """Run all jobs.

    The first SIGINT, SIGTERM or SIGHUP asks every run to stop, which writes a checkpoint; what has not stopped in time,
    or at a second signal, is named and killed.

    Args:
        jobs: started in this order.
        num_parallel: processes at a time, at least 1.
        on_end: told of every process that ends.
        on_note: told of what a person should know.
        stop_timeout: seconds that runs have to stop in.

    Returns:
        The signal that stopped it; None where all jobs have been run.
    """
    waiting, running = deque(jobs), dict[subprocess.Popen[bytes], tuple[Job, float]]()
    received: list[int] = []
    with on_signals(received.append):
        try:
            while running or (waiting and not received):
                while waiting and len(running) < num_parallel and not received:
                    job = waiting.popleft()
                    running[_start(job)] = (job, time.monotonic())
                if received:
                    on_note(f"stopping {len(running)} runs; they write a checkpoint, up to {stop_timeout:g} s")
                    _stop(running, received, on_note, stop_timeout)
                _reap(running, on_end, stopped=bool(received))
                time.sleep(POLL if running else 0)
        finally:  # whatever went wrong here: no process is left behind
            if running:
                _stop(running, received, on_note, stop_timeout)
    return received[0] if received else None


def _start(job: Job) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, so that Ctrl-C reaches it once, from here."""
    job.directory.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - our own command
            (*COMMAND, *job.arguments),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _reap(
    running: dict[subprocess.Popen[bytes], tuple[Job, float]], on_end: Callable[[Ended], None], *, stopped: bool
) -> None:
    for process in [process for process in running if process.poll() is not None]:
        job, began = running.pop(process)
        on_end(Ended(job, int(process.returncode), time.monotonic() - began, stopped))


def _stop(
    running: dict[subprocess.Popen[bytes], tuple[Job, float]],
    received: list[int],
    on_note: Callable[[str], None],
    timeout: float,
) -> None:
    """Asks all processes to stop and waits until they have."""
    for process in running:
        process.send_signal(signal.SIGINT)
    deadline, signals = time.monotonic() + timeout, len(received)
    while any(process.poll() is None for process in running):
        if time.monotonic() > deadline or len(received) > signals:
            for process, (job, _) in running.items():
                if process.poll() is None:
                    on_note(f"{job.name} (process {process.pid}) has not stopped and is killed; log: {job.log}")
                    os.killpg(process.pid, signal.SIGKILL)  # with the workers of its environments
                    process.wait()
        time.sleep(POLL)
