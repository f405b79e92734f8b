"""Train many runs with any launcher, a limited number at once; a failed run does not affect the others."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from tesserl_trainer.signals import on_signals
from tesserl_trainer.sweep.jobs import Ended, Job

POLL = 0.1
"""Longest wait in seconds between two checks of signals and deadlines."""


class Launcher(Protocol):
    """Trains runs in processes, Ray tasks or Slurm jobs."""

    @property
    def jobs(self) -> Sequence[Job]:
        """Return the jobs whose end was not returned yet."""

    def submit(self, jobs: Sequence[Job]) -> None:
        """Start training runs; adopt those that an earlier job trains already."""

    def wait(self, timeout: float) -> list[Ended]:
        """Return the jobs that have ended since the last call, after at most ``timeout`` seconds."""

    def stop(self, job: Job) -> None:
        """Ask a run, once, to write a checkpoint and end."""

    def kill(self, job: Job) -> None:
        """End a run at once."""

    def where(self, job: Job) -> str:
        """Describe the process, task or cluster job of a job, for messages."""

    def holds(self, run_dir: Path) -> bool:
        """Return whether an earlier job trains a run, so that ``submit`` will adopt it."""


def run_jobs(
    next_job: Callable[[], Job | None],
    launcher: Launcher,
    *,
    num_parallel: int | None,
    on_end: Callable[[Ended], None],
    on_note: Callable[[str], None],
    should_stop: Callable[[Job], bool] | None = None,
    stop_timeout: float = 60.0,
) -> int | None:
    """Run all jobs.

    The first SIGINT, SIGTERM or SIGHUP asks every run to write a checkpoint and stop. Runs that have not stopped in
    time, or at a second signal, are named and killed.

    Args:
        next_job: returns the job to start when there is room for one; None if there is none at that time.
        launcher: trains them.
        num_parallel: number of jobs at once, at least 1; None submits all, and the launcher's queue starts them.
        on_end: called with every job that ends.
        on_note: called with messages for people.
        should_stop: returns whether to stop a training run; called repeatedly.
        stop_timeout: seconds in which asked runs must stop.

    Returns:
        The signal that stopped the jobs; None if all jobs ran.
    """
    received = list[int]()
    stopping = _Stopping(launcher, on_note, stop_timeout)
    with on_signals(received.append):
        try:
            while True:
                batch = list[Job]()
                while num_parallel is None or len(launcher.jobs) + len(batch) < num_parallel:
                    if received or (job := next_job()) is None:
                        break
                    batch.append(job)
                if batch:
                    launcher.submit(batch)
                if not launcher.jobs:
                    break
                if received:
                    on_note(f"stopping {len(launcher.jobs)} runs; they write a checkpoint, up to {stop_timeout:g} s")
                    for ended in stopping.stop_all(received):
                        on_end(ended)
                    continue
                if should_stop is not None:
                    for job in launcher.jobs:
                        if should_stop(job):
                            stopping.ask(job)
                stopping.kill_overdue()
                for ended in launcher.wait(POLL):
                    on_end(ended)
        finally:  # after any error, leave no job behind
            if launcher.jobs:
                stopping.stop_all(received)
    return received[0] if received else None


class _Stopping:
    """Asks runs to stop and kills those that do not."""

    def __init__(self, launcher: Launcher, on_note: Callable[[str], None], timeout: float) -> None:
        self._launcher, self._on_note, self._timeout = launcher, on_note, timeout
        self._deadlines: dict[str, float] = {}
        self._killed: set[str] = set()

    def ask(self, job: Job) -> None:
        """Ask a run to stop, only once: a second request would prevent its checkpoint."""
        if job.name not in self._deadlines:
            self._deadlines[job.name] = time.monotonic() + self._timeout
            self._launcher.stop(job)

    def kill_overdue(self, *, now: bool = False) -> None:
        """Kill runs that have not stopped in time; with ``now``, all that have not stopped yet."""
        for job in self._launcher.jobs:
            deadline = self._deadlines.get(job.name)
            if deadline is not None and job.name not in self._killed and (now or time.monotonic() > deadline):
                self._killed.add(job.name)
                self._on_note(f"{job.name} ({self._launcher.where(job)}) has not stopped and is killed; log: {job.log}")
                self._launcher.kill(job)

    def stop_all(self, received: list[int]) -> list[Ended]:
        """Ask all runs to stop and wait for them; return the ended jobs."""
        ended, signals = list[Ended](), len(received)
        for job in self._launcher.jobs:
            self.ask(job)
        while self._launcher.jobs:
            ended += self._launcher.wait(POLL)
            self.kill_overdue(now=len(received) > signals)
        return ended
