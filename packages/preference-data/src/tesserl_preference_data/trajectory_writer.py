"""Write trajectories to a store on disk (see ``trajectories.py``), or add them to an existing one."""

import json
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase

from tesserl_preference_data import StoreError
from tesserl_preference_data.files import MANIFEST, map_tensors
from tesserl_preference_data.trajectories import (
    FORMAT,
    FORMAT_VERSION,
    EpisodeLine,
    read_episode_lines,
    read_manifest,
)
from tesserl_storage.digests import digest
from tesserl_storage.locks import is_lock, locked
from tesserl_storage.tensors import write_tensors
from tesserl_storage.whole_files import remove_partial, write_atomically, write_json, write_text

REMEDY = "wait for it, or collect into another directory: tesserl pairs make takes several"

FILE_BYTES = 64 * 2**20
"""Approximate bytes of steps per file: the memory that writing needs."""


class TrajectoryWriter:
    """Context manager that adds episodes to a new or existing store.

    Complete episodes are kept if the context ends with an error. No other process can add to the store meanwhile. The
    numbers of starts and sources continue those in the store.

    Args:
        path: directory of the store, which is created if it does not exist.
        source: description of what acts, JSON data.
        environment: description of the task, JSON data; None for unknown.

    Raises:
        InUseError: on entering, another process still adds episodes to the store after ten seconds.
        StoreError: the directory is not a store of trajectories, or has episodes of another task.
    """

    def __init__(
        self, path: str | Path, *, source: Mapping[str, Any], environment: Mapping[str, Any] | None = None
    ) -> None:
        self.path = Path(path)
        self._source, self._environment = dict(source), environment
        self._manifest = _manifest_to_extend(self.path, environment)  # raises before a lock is made
        self.next_start = 0
        self._kept: list[TensorDictBase] = []
        self._episodes: list[EpisodeLine] = []
        self._bytes = 0
        self._lock = ExitStack()

    def __enter__(self) -> "TrajectoryWriter":
        with ExitStack() as attempt:
            try:
                self._enter_directory(attempt)
            except FileNotFoundError:  # another process that wrote nothing has removed it meanwhile
                self._enter_directory(attempt)
            remove_partial(self.path)
            self._manifest = _manifest_to_extend(self.path, self._environment)
            self._manifest["sources"].append(self._source)
            lines = read_episode_lines(self.path, self._manifest)
            self.next_start = 1 + max((each.start for part in lines for each in part), default=-1)
            self._lock = attempt.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self.flush()

    def _enter_directory(self, stack: ExitStack) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        stack.enter_context(locked(self.path, doing="adds episodes to this store", remedy=REMEDY))
        stack.callback(self._remove_if_empty)

    @property
    def source(self) -> int:
        """Index of this collection in the store's sources."""
        return len(self._manifest["sources"]) - 1

    def _remove_if_empty(self) -> None:
        """Remove the directory if nothing has been written to it, while holding its lock."""
        if all(is_lock(file.name) for file in self.path.iterdir()):
            with suppress(OSError):  # another process waits for the lock
                for file in self.path.iterdir():
                    file.unlink()
                self.path.rmdir()

    def add(self, steps: TensorDictBase, start: int) -> None:
        """Add an episode.

        Args:
            steps: steps ``[T]``, with the keys of `Trajectories`, without ``("next", "done")``.
            start: number of the start, equal for episodes with the same start.

        Raises:
            StoreError: keys, dtypes or shapes differ from those of the store.
        """
        steps = steps.exclude(("next", "done"))
        if not self._kept:
            self._check_layout(steps)
        rewards = steps["next", "reward"].double()
        self._kept.append(steps)
        self._episodes.append(EpisodeLine(len(steps), float(rewards.sum()), start, self.source))
        self._bytes += steps.bytes()
        if self._bytes >= FILE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write all added episodes; they are on disk when this returns.

        Raises:
            OSError: the episodes cannot be written, for example on a full disk; the store is unchanged.
        """
        if not self._kept:
            return
        number = len(self._manifest["files"])
        names = {"steps": f"steps-{number:05d}.safetensors", "episodes": f"episodes-{number + 1:05d}.jsonl"}
        try:
            manifest = {**self._manifest, "files": [*self._manifest["files"], *self._write(names)]}
            write_json(self.path / MANIFEST, manifest)
        except BaseException:
            there = read_manifest(self.path)["files"] if (self.path / MANIFEST).exists() else []
            for name in {*names.values()} - {entry["name"] for entry in there}:
                (self.path / name).unlink(missing_ok=True)
            raise
        self._manifest = manifest
        self._kept, self._episodes, self._bytes = [], [], 0

    def _write(self, names: Mapping[str, str]) -> list[dict[str, Any]]:
        """Write the files of the added episodes; return their manifest entries."""
        tensors = _flat(TensorDict.cat(self._kept))
        write_atomically(self.path / names["steps"], lambda partial: write_tensors(partial, tensors))
        write_text(self.path / names["episodes"], "".join(episode.line() for episode in self._episodes))
        counts = {"steps": sum(episode.length for episode in self._episodes), "episodes": len(self._episodes)}
        return [
            {"name": name, "kind": kind, "count": counts[kind], **digest(self.path / name)}
            for kind, name in names.items()
        ]

    def _check_layout(self, steps: TensorDictBase) -> None:
        first = next((entry for entry in self._manifest["files"] if entry["kind"] == "steps"), None)
        if first is None:
            return
        there, given = _layout(map_tensors(self.path / first["name"])), _layout(_flat(steps))
        if there != given:
            raise StoreError(
                f"{self.path} holds other steps: expected {sorted(there - given)}, got {sorted(given - there)}; "
                "say --frames or --no-frames as for those, or name another directory"
            )


def _manifest_to_extend(path: Path, environment: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the existing manifest, or one without files."""
    environment = None if environment is None else json.loads(json.dumps(environment))
    if not (path / MANIFEST).exists():
        names = [file.name for file in path.glob("*") if not is_lock(file.name)]
        foreign = [name for name in names if not name.strip(".").startswith(("steps-", "episodes-", MANIFEST))]
        if foreign or path.is_file():
            raise StoreError(f"{path} must be a store of trajectories, new or empty, got {sorted(foreign)[:3]} there")
        manifest = {"format": FORMAT, "format_version": FORMAT_VERSION, "environment": environment}
        return {**manifest, "sources": [], "files": []}
    manifest = read_manifest(path)
    if manifest["environment"] != environment:
        raise StoreError(
            f"{path} holds episodes of {manifest['environment']}, got {environment}; name another directory"
        )
    return manifest


def _flat(steps: TensorDictBase) -> dict[str, torch.Tensor]:
    return {
        "/".join(key) if isinstance(key, tuple) else key: tensor.cpu().contiguous()
        for key, tensor in steps.items(include_nested=True, leaves_only=True)
    }


def _layout(tensors: Mapping[str, torch.Tensor]) -> set[str]:
    return {f"{name} {list(tensor.shape[1:])} {tensor.dtype}" for name, tensor in tensors.items()}
