"""Inspect a sweep's directory: the state of its runs, and the files that must be kept."""

import json
import os
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from tesserl_analysis import run_files
from tesserl_configs import ConfigError, load_config
from tesserl_configs.diff import Difference, diff_configs
from tesserl_configs.sweep import Sweep, SweepRun
from tesserl_storage.locks import LOCK, OWNER_SUFFIX, locked
from tesserl_trainer.running.run_directory import CHANGEABLE, as_measured
from tesserl_trainer.usage import command_line
from tesserl_training.checkpoints.names import checkpoint_paths
from tesserl_training.checkpoints.run_identity import require_identity

LEFT_TIMEOUT = 30.0
"""Seconds to wait for a run of a killed sweep to write a checkpoint and end."""

WRITTEN = (
    *(run_files.CONFIG, run_files.METRICS, run_files.CURVE, run_files.IDENTITY, run_files.LOG),
    *(".config.yaml.*partial", ".metrics.csv.*partial", ".run.json.*partial"),
    *("buffer", "buffer/*", "checkpoints", "checkpoints/best.json", "checkpoints/.*.partial*"),
    *("replay", "replay/*.safetensors", "replay/.*.partial", "tensorboard", "tensorboard/events.out.tfevents.*"),
    *("wandb", "wandb/*", LOCK, LOCK + OWNER_SUFFIX),
)
"""Files that training writes before the first checkpoint; ``*`` stands for ``/`` too."""


def state_of(run_dir: Path) -> str:
    """Return ``finished``; ``started``, if there is a checkpoint to continue from; or ``new``."""
    if (run_dir / run_files.EVALUATION).is_file():  # written at the very end of a run
        return "finished"
    return "started" if (run_dir / run_files.CHECKPOINTS / run_files.LATEST).is_file() else "new"


def refuse_files(sweep: Sweep, directory: Path) -> None:
    """Refuse a sweep if one of its directories exists as a file."""
    places = [place for run in sweep.runs for place in (directory / run.path, stored_config(run, directory).parent)]
    found = {above for place in places for above in (place, *place.parents) if os.path.lexists(above)}
    if problems := [
        f"{path}: expected a directory, or nothing yet, got another file; move it away, or give this sweep another "
        "directory with --name or --runs"
        for path in sorted(found)
        if not path.is_dir()
    ]:
        raise ConfigError(*problems)


def refuse_running(sweep: Sweep, directory: Path, holds: Callable[[Path], bool]) -> None:
    """Refuse a sweep if another process trains one of its runs; first wait for runs of a killed sweep to end."""
    for run in sweep.runs:
        path = directory / run.path
        if (path / LOCK).is_file() and not holds(path):
            remedy = "a sweep or search that was killed may have left it; wait for it, or stop it"
            with locked(path, doing="trains here", remedy=remedy, timeout=LEFT_TIMEOUT):
                pass


def refuse_others(sweep: Sweep, directory: Path) -> None:
    """Refuse a directory with runs of another sweep, or with runs that this sweep would overwrite."""
    problems, lost = list[str](), list[str]()
    for run in sweep.runs:
        path = directory / run.path
        state = state_of(path)
        if state == "new":
            lost += _kept(path)
            continue
        changes = [
            f"{key} {left!r} there, {right!r} here"
            for key, left, right in changes_of(run, directory)
            if not _may_change(key, state)
        ]
        if changes:
            more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
            problems.append(f"{path}: made with another configuration: {'; '.join(changes[:3])}{more}")
    if problems:
        problems.append("remove these runs, or give this sweep another directory with --name or --runs")
    if problems or lost:
        raise ConfigError(*lost, *problems)


def changes_of(run: SweepRun, directory: Path) -> list[Difference]:
    """Return the differences between a stored run and the sweep's file, except names."""
    path = directory / run.path
    if (path / run_files.IDENTITY).exists():  # a resume refuses a run without it
        require_identity(path)
    there = load_config(path / run_files.CONFIG).model_copy(update={"name": run.config.name})
    return diff_configs(there, as_measured(run.config, there))


def _may_change(key: str, state: str) -> bool:
    """Return whether a key of a run may change; in a finished run only if the score does not depend on it."""
    block = key.partition(".")[0]
    if state == "finished":
        return block in ("checkpoint", "logging") and key != "checkpoint.keep_best"
    return block in CHANGEABLE


def _kept(path: Path) -> Iterator[str]:
    """Yield reasons against clearing the directory of a run without ``latest.json`` for a new start."""
    if checkpoints := checkpoint_paths(path / run_files.CHECKPOINTS):
        command = command_line("tesserl", "train", "--resume", checkpoints[-1])
        yield (
            f"{path}: has checkpoints and no checkpoints/latest.json that names one; continue the run with "
            f"`{command}`, or move it away"
        )
        return
    foreign = [str(found.relative_to(path)) for found in sorted(path.rglob("*")) if not _is_written(found, path)]
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        yield f"{path}: has {', '.join(foreign[:3])}{more}, which training does not write; move it away, or remove it"


def _is_written(found: Path, run_dir: Path) -> bool:
    name = found.relative_to(run_dir).as_posix()
    if found.is_symlink() and not name.startswith("wandb/"):  # W&B makes symlinks
        return False
    return any(fnmatchcase(name, pattern) for pattern in WRITTEN)


def expected_runs(sweep: Sweep, directory: Path) -> list[str]:
    """Return the paths of all runs that belong in the directory, including those of earlier calls of this sweep."""
    order = directory / run_files.ORDER
    before = json.loads(order.read_text(encoding="utf-8")).get("runs", []) if order.is_file() else []
    expected = {*before, *(run.path.as_posix() for run in sweep.runs)}
    return [path.as_posix() for path in sweep.paths if path.as_posix() in expected]


def stored_config(run: SweepRun, directory: Path) -> Path:
    """Return the path of a variant's configuration: a ``.yml``, because ``compare`` treats ``config.yaml`` as a run."""
    return directory / "configs" / (run.task or "") / f"{run.variant}.yml"
