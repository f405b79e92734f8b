"""Runs as jobs: where one begins, and the process that trains it."""

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from tesserl_analysis import run_files
from tesserl_trainer.running.directories import clear
from tesserl_trainer.signals import PARENT
from tesserl_trainer.sweep.directory import state_of

COMMAND = (sys.executable, "-m", "tesserl_trainer.cli")
"""Command that starts a run: this installation, whatever PATH says."""


@dataclass(frozen=True)
class Job:
    """One run that is to be trained, from the state that its directory has when it begins.

    Args:
        name: what a person calls it.
        directory: of the run.
        config: file of a run that begins.
        seed: of a run that begins.
        changed: ``key=value`` that a run that continues takes over from the sweep.
        num_threads: of the run.
    """

    name: str
    directory: Path
    config: Path
    seed: int
    changed: tuple[str, ...] = ()
    num_threads: int = 1

    @property
    def log(self) -> Path:
        """Path of its output."""
        return self.directory / run_files.LOG

    def absolute(self) -> "Job":
        """Return the job with absolute paths, for another machine."""
        return replace(self, directory=self.directory.resolve(), config=self.config.resolve())


@dataclass(frozen=True)
class Ended:
    """A job that has ended: its run, exit code, seconds, and whether it had been asked to stop."""

    job: Job
    code: int
    seconds: float
    stopped: bool


class SweepError(RuntimeError):
    """A sweep that cannot be run here now."""

    exit_code = 1


def begin(job: Job) -> tuple[str, ...] | None:
    """Return the arguments of ``tesserl`` that train a run from its present state; None if it is finished.

    What a run left that ended before its first checkpoint is removed, see `tesserl_trainer.sweep.directory.WRITTEN`.
    """
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
    """Start the process of a run. It ends with this one, and writes a checkpoint before.

    It has a session of its own, so that Ctrl-C reaches it once, from here.

    Args:
        job: the run.
        arguments: of the command.
        command: the command; None: that of this installation.
        place: directory in which it runs; None: the present one.
    """
    job.directory.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - our own command
            (*(command or COMMAND), *arguments),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=place,
            env={**os.environ, PARENT: str(os.getpid())},
        )
