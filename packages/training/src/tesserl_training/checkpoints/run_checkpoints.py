"""Manage the checkpoints of one run: list them, find the latest and the best, remove old ones.

``latest.json`` and ``best.json`` name a checkpoint for people and programs. They are written after the checkpoint, so
after a kill there may be a newer checkpoint than the one named. The checkpoints decide: the newest one is the latest,
and its manifest names the best.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tesserl_analysis import run_files
from tesserl_storage.errors import StorageError
from tesserl_storage.fields import Fields
from tesserl_storage.sealed_json import read_json
from tesserl_storage.whole_files import write_json
from tesserl_training.checkpoints.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_networks,
    read_manifest,
    write_checkpoint,
)
from tesserl_training.checkpoints.names import checkpoint_name, checkpoint_paths, step_of
from tesserl_training.checkpoints.run_identity import Identity, NoRunError, read_identity

TRIES = 20
"""Attempts to read a checkpoint while a training writes and removes checkpoints in the same directory."""


@dataclass(frozen=True)
class Weights:
    """The networks of a checkpoint, which are enough to act."""

    path: Path
    step: int
    networks: dict[str, Tensor]


class Checkpoints:
    """The checkpoints of one run.

    Args:
        run_dir: directory of the run.
        keep_last: number of newest checkpoints to keep.
        keep_best: also keep the checkpoint with the best evaluation.
        read_only: mark no best checkpoint and remove none, because another process does.
    """

    def __init__(self, run_dir: Path, *, keep_last: int = 2, keep_best: bool = True, read_only: bool = False) -> None:
        self.run_dir, self.directory, self._read_only = run_dir, run_dir / run_files.CHECKPOINTS, read_only
        self.keep_best = keep_best
        self._keep_last = keep_last

    @property
    def identity(self) -> Identity | None:
        """Return the identity of the run, which all its checkpoints must have; None outside of a run.

        Raises:
            StorageError: ``run.json`` is damaged.
        """
        return read_identity(self.run_dir)

    def paths(self) -> list[Path]:
        """Return all checkpoints, in the order of their steps."""
        return checkpoint_paths(self.directory)

    def save(
        self,
        step: int,
        state: Mapping[str, Any],
        *,
        segments: Sequence[Mapping[str, Any]] = (),
        rank_segments: Sequence[Sequence[Mapping[str, Any]]] = (),
        record: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write a checkpoint and mark it as the latest.

        Args:
            step: environment steps so far; no checkpoint of this step may exist.
            state: see ``write_checkpoint``.
            segments: see ``write_checkpoint``.
            rank_segments: see ``write_checkpoint``.
            record: see ``write_checkpoint``.

        Returns:
            The directory of the checkpoint.
        """
        path = self.directory / checkpoint_name(step)
        write_checkpoint(
            path, step, state, identity=self.identity, segments=segments, rank_segments=rank_segments, record=record
        )
        self._point(run_files.LATEST, {"checkpoint": path.name})
        return path

    def load(self, name: str) -> Checkpoint:
        """Read a checkpoint of the run; see ``find`` and ``load_checkpoint``."""
        return load_checkpoint(self.find(name), self.identity)

    def load_weights(self, name: str) -> Weights:
        """Read the networks of a checkpoint; a training may write newer ones and remove this one meanwhile.

        Args:
            name: see ``find``.

        Raises:
            StorageError: the checkpoint does not exist or is damaged.
        """
        for _ in range(TRIES):
            there = self.paths()
            try:
                path, identity = self.find(name), self.identity
                return Weights(path, int(read_manifest(path, identity)["step"]), load_networks(path, identity))
            except StorageError:
                if self.paths() == there:  # no newer checkpoint has replaced it, so it is really missing
                    raise
        raise StorageError(f"{self.run_dir}: checkpoints are replaced faster than they can be read; try again later")

    def rewind(self, step: int, best: Mapping[str, Any] | None) -> list[str]:
        """Remove checkpoints newer than ``step``, and restore the best checkpoint as of that step.

        Args:
            step: step of the checkpoint from which the run continues.
            best: content of ``best.json`` at that step; None if there was no evaluation yet.

        Returns:
            The names of the removed checkpoints.
        """
        self._point(run_files.LATEST, {"checkpoint": checkpoint_name(step)})
        newer = [path for path in self.paths() if _step(path) > step]
        for path in reversed(newer):
            _remove(path)
        (self.directory / run_files.BEST).unlink(missing_ok=True)
        if best is not None and (self.directory / best["checkpoint"]).is_dir():
            self.mark_best(best)
        return [path.name for path in newer]

    def mark_best(self, best: Mapping[str, Any]) -> None:
        """Write ``best.json``: ``{"checkpoint": directory name, "return_mean": mean return of its evaluation}``."""
        if not self._read_only:
            self._point(run_files.BEST, best)

    def prune(self, *, pending: int | None = None) -> list[Path]:
        """Remove checkpoints that need not be kept; return the kept ones, oldest first.

        Args:
            pending: step of a checkpoint to keep because its evaluation is running; None if there is none.
        """
        if self._read_only:
            return self.paths()
        for left in (*self.directory.glob(".*.partial"), *self.directory.glob(".*.removed")):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        keep = {*self.newest(), self.latest()}
        if self.keep_best:
            keep.add(self.best())
        if pending is not None:
            keep.add(self.directory / checkpoint_name(pending))
        for path in self.paths():
            if path not in keep:
                _remove(path)
        return self.paths()

    def newest(self) -> list[Path]:
        """Return the newest checkpoints to keep, oldest first."""
        return self.paths()[-self._keep_last :]

    def latest(self) -> Path | None:
        """Return the latest checkpoint, or None if the run has none yet.

        Raises:
            StorageError: ``latest.json`` is damaged, belongs to another run, or names a missing checkpoint.
        """
        named = self._named(run_files.LATEST)
        if named is not None and not named.is_dir():
            there = ", ".join(path.name for path in self.paths()) or "none"
            raise StorageError(
                f"{self.directory / run_files.LATEST}: {named.name} is missing, there are: {there}; put it back, or "
                "name one of these"
            )
        return next(reversed(self.paths()), None)

    def best(self) -> Path | None:
        """Return the best checkpoint; None if nothing was evaluated or the best was not kept.

        Raises:
            StorageError: ``best.json`` or the latest checkpoint is damaged or belongs to another run.
        """
        path, latest = self._named(run_files.BEST), self.latest()
        noted = None if latest is None else read_manifest(latest, self.identity)["best"]
        if noted is not None:
            path = self._place(Fields(noted, f"{latest}: best"))
        return path if path is not None and path.is_dir() else None

    def find(self, name: str) -> Path:
        """Return the directory of a checkpoint.

        Args:
            name: ``"best"``, ``"latest"``, or the name of a directory.

        Raises:
            NoRunError: no checkpoint has that name.
        """
        if name == "best":
            path = self.best()
        elif name == "latest":
            path = self.latest()
        else:  # any other name could be a path outside of the run
            path = self.directory / name if step_of(name) is not None else None
        if path is None or not path.is_dir():
            there = ", ".join(path.name for path in self.paths()) or "none"
            raise NoRunError(f"{self.run_dir}: no checkpoint {name!r}; there are: {there}")
        return path

    def _point(self, name: str, content: Mapping[str, Any]) -> None:
        identity = self.identity
        write_json(self.directory / name, {**content, "run_id": identity.run_id if identity else None})

    def _named(self, name: str) -> Path | None:
        """Return the checkpoint that a file names; None if there is no such file."""
        pointer = self.directory / name
        if not pointer.exists():
            return None
        fields, identity = Fields(read_json(pointer), str(pointer)), self.identity
        named_run = fields.value.get("run_id")  # absent if a person wrote the file
        if identity is not None and named_run not in (None, identity.run_id):
            raise StorageError(
                f"{pointer}: of the run {named_run}, expected this run, {identity.run_id}; put back the run's own"
            )
        return self._place(fields)

    def _place(self, fields: Fields) -> Path:
        """Return the checkpoint in the entry ``checkpoint``; refuse a path outside of the run."""
        name = fields.text("checkpoint")
        if step_of(name) is None:
            raise StorageError(
                f"{fields.where}: checkpoint: expected a name like step_000050000, got {name!r:.80}; put the file back"
            )
        return self.directory / name


def _step(path: Path) -> int:
    return step_of(path.name) or 0


def _remove(path: Path) -> None:
    """Remove a checkpoint atomically: rename it first, so that its name never holds a partial checkpoint."""
    hidden = path.with_name(f".{path.name}.removed")
    shutil.rmtree(hidden, ignore_errors=True)
    path.rename(hidden)
    shutil.rmtree(hidden)
