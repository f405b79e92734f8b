"""Choose and lock the directories of new runs; refuse directories that hold a run."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain, count
from pathlib import Path

from tesserl_analysis import run_files
from tesserl_configs import ConfigError, RunConfig
from tesserl_storage.locks import InUseError, is_lock, locked
from tesserl_storage.whole_files import PARTIAL, remove_partial
from tesserl_trainer.usage import command_line

LOCK_TIMEOUT = 10.0
"""Seconds to wait for a training in the same directory to end."""


@contextmanager
def new_directory(config: RunConfig, run_dir: str | Path | None) -> Iterator[Path]:
    """Make and lock the directory of a new run; refuse a directory that holds a run."""
    if run_dir is not None:
        path = Path(run_dir)
        _refuse_taken(path)
        path.mkdir(parents=True, exist_ok=True)
        with lock(path):
            _refuse_taken(path)  # another training may have started and ended while this one waited
            yield path
        return
    with ExitStack() as stack:
        numbered = (Path("runs", f"{config.name}-{number}") for number in count(2))
        yield next(path for path in chain([Path("runs", str(config.name))], numbered) if _enter(path, stack))


def _enter(path: Path, stack: ExitStack) -> bool:
    """Lock a directory for a new run; return False if it holds a run."""
    if _is_taken(path):
        return False
    path.mkdir(parents=True, exist_ok=True)
    with ExitStack() as attempt:
        try:
            attempt.enter_context(lock(path, timeout=0.0))
        except InUseError:
            return False
        if _is_taken(path):
            return False
        stack.push(attempt.pop_all())
    return True


@contextmanager
def lock(run_dir: Path, *, timeout: float | None = None) -> Iterator[None]:
    """Lock a directory against other trainings, and remove unfinished files of a killed training."""
    remedy = "wait for it, stop it, or name another directory"
    timeout = LOCK_TIMEOUT if timeout is None else timeout
    with locked(run_dir, doing="trains here", remedy=remedy, timeout=timeout):
        remove_partial(run_dir)
        yield


def clear(run_dir: Path, *, keep: str | None = None) -> None:
    """Remove the files of a run that ended before its first checkpoint, except locks."""
    for left in run_dir.glob("*"):
        if left.name != keep and not is_lock(left.name):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def _refuse_taken(path: Path) -> None:
    if _is_taken(path):
        raise ConfigError(
            f"--run-dir: {path} is not empty; continue the run there with {command_line('--resume', path)}, or name "
            "another directory"
        )


def _is_taken(path: Path) -> bool:
    """Return whether a path is a file, or a directory with more than locks, unfinished files and a sweep's log."""
    if not path.is_dir():
        return path.exists()
    names = {found.name for found in path.iterdir() if not is_lock(found.name) and found.suffix != PARTIAL}
    return bool(names - {run_files.LOG})
