"""Jobs that train runs: their arguments, their processes and their results."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from tesserl_analysis import run_files
from tesserl_trainer.running.directories import clear
from tesserl_trainer.signals import PARENT
from tesserl_trainer.sweep.directory import state_of

HandleT = TypeVar("HandleT")

COMMAND = (sys.executable, "-m", "tesserl_trainer.cli")
"""Command that starts a run with this installation, independent of PATH."""


@dataclass(frozen=True)
class Job:
    """One run to train, from the state of its directory at the start of the job."""

    name: str
    directory: Path
    config: Path  # for a new run, as is the seed
    seed: int
    changed: tuple[str, ...] = ()  # KEY=VALUE that a continued run adopts from the sweep
    num_threads: int = 1

    @property
    def log(self) -> Path:
        """Return the path of the log with the output of the run."""
        return self.directory / run_files.LOG

    def absolute(self) -> "Job":
        """Return the job with absolute paths, for use on another machine."""
        return replace(self, directory=self.directory.resolve(), config=self.config.resolve())


@dataclass(frozen=True)
class Ended:
    """A job that has ended: its run, exit code, duration in seconds, and whether it was asked to stop."""

    job: Job
    code: int
    seconds: float
    stopped: bool


@dataclass
class Submitted(Generic[HandleT]):
    """A submitted job, with the handle of the process, Ray task or Slurm job that trains it."""

    job: Job
    handle: HandleT
    began: float = field(default_factory=time.monotonic)
    stopped: bool = False

    def ended(self, code: int) -> Ended:
        """Return the job as ended now with an exit code."""
        return Ended(self.job, code, time.monotonic() - self.began, self.stopped)


class SweepError(RuntimeError):
    """A sweep or search cannot run, or some of its runs failed."""

    exit_code = 1


def begin(job: Job) -> tuple[str, ...] | None:
    """Return the arguments that train a run from its current state; None if it is finished."""
    path = job.directory
    match state_of(path):
        case "finished":
            return None
        case "started":
            return ("train", *(part for each in job.changed for part in ("--set", each)), "--resume", str(path))
    clear(path, keep=run_files.LOG)
    return ("train", str(job.config), "--set", f"seed={job.seed}", "--run-dir", str(path))


def start(
    job: Job, arguments: tuple[str, ...], *, command: tuple[str, ...] | None = None, place: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start the process of a run in a new session; when this process ends, it writes a checkpoint and ends too."""
    job.directory.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - a trusted command
            (*(command or COMMAND), *arguments),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=place,
            env={**os.environ, PARENT: str(os.getpid())},
        )
