"""Many runs, at most so many at a time, none lost to another one's failure, by a launcher of any kind."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from tesserl_trainer.signals import on_signals
from tesserl_trainer.sweep.jobs import Ended, Job

POLL = 0.1
"""Longest wait in seconds between two looks at signals and deadlines."""


class Launcher(Protocol):
    """Trains runs somewhere."""

    @property
    def jobs(self) -> Sequence[Job]:
        """Jobs that have not ended, or whose end was not returned yet."""

    def submit(self, jobs: Sequence[Job]) -> None:
        """Train runs, or continue to wait for those that train already."""

    def wait(self, timeout: float) -> list[Ended]:
        """Return the jobs that have ended since the last call, after at most ``timeout`` seconds."""

    def stop(self, job: Job) -> None:
        """Ask a run, once, to write a checkpoint and end."""

    def kill(self, job: Job) -> None:
        """End a run at once."""

    def where(self, job: Job) -> str:
        """Return what runs a job, for messages."""

    def holds(self, run_dir: Path) -> bool:
        """Return whether a job from before trains a run, for which ``submit`` will wait."""


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

    The first SIGINT, SIGTERM or SIGHUP asks every run to stop, which writes a checkpoint; what has not stopped in time,
    or at a second signal, is named and killed.

    Args:
        next_job: return the run to start when there is room for one; None if there is none at that time.
        launcher: trains them.
        num_parallel: jobs at a time, at least 1; None: all that there are, of which the launcher begins as it can.
        on_end: told of every job that ends.
        on_note: told of what a person should know.
        should_stop: return whether a run that is training is to be stopped; asked again and again.
        stop_timeout: seconds that runs have to stop in.

    Returns:
        The signal that stopped it; None where all jobs have been run.
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
        finally:  # whatever went wrong here: nothing is left behind
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
        """Ask a run to stop, once: a run that is asked again does not write a checkpoint."""
        if job.name not in self._deadlines:
            self._deadlines[job.name] = time.monotonic() + self._timeout
            self._launcher.stop(job)

    def kill_overdue(self, *, now: bool = False) -> None:
        """Kill runs that have not stopped in time, or those that have not stopped yet."""
        for job in self._launcher.jobs:
            deadline = self._deadlines.get(job.name)
            if deadline is not None and job.name not in self._killed and (now or time.monotonic() > deadline):
                self._killed.add(job.name)
                self._on_note(f"{job.name} ({self._launcher.where(job)}) has not stopped and is killed; log: {job.log}")
                self._launcher.kill(job)

    def stop_all(self, received: list[int]) -> list[Ended]:
        """Ask all runs to stop and wait until they have; return them."""
        ended, signals = list[Ended](), len(received)
        for job in self._launcher.jobs:
            self.ask(job)
        while self._launcher.jobs:
            ended += self._launcher.wait(POLL)
            self.kill_overdue(now=len(received) > signals)
        return ended
