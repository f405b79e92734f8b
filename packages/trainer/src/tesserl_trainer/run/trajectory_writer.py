"""Writes trajectories to disk, or adds to those that are there: the store that ``trajectories.py`` describes."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors.torch import save_file
from tensordict import TensorDict, TensorDictBase

from tesserl_preference_opt import StoreError
from tesserl_trainer.run.files import digest, write_atomically, write_json, write_text
from tesserl_trainer.run.trajectories import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST,
    EpisodeLine,
    map_steps,
    read_episode_lines,
    read_manifest,
)

FILE_BYTES = 64 * 2**20
"""Steps of a file, about: what writing needs in memory."""


class TrajectoryWriter:
    """Adds episodes to a store, or makes one. Whatever is complete is kept when it is left by an error.

    Args:
        path: directory of the store; made where there is none.
        source: who acts, JSON data.
        environment: the task, JSON data; None for unknown.

    Raises:
        StoreError: the directory holds something else, or episodes of another task.
    """

    def __init__(
        self, path: str | Path, *, source: Mapping[str, Any], environment: Mapping[str, Any] | None = None
    ) -> None:
        self.path = Path(path)
        self._manifest = _manifest_to_extend(self.path, environment)
        self._manifest["sources"].append(dict(source))
        self.next_start = 1 + max(
            (each.start for part in read_episode_lines(self.path, self._manifest) for each in part), default=-1
        )
        self._kept: list[TensorDictBase] = []
        self._episodes: list[EpisodeLine] = []
        self._bytes = 0

    def __enter__(self) -> "TrajectoryWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    def add(self, steps: TensorDictBase, start: int) -> None:
        """Adds an episode.

        Args:
            steps: ``[T]``, as ``Trajectories`` returns them; ``("next", "done")`` is left out.
            start: equal for episodes that began alike.

        Raises:
            StoreError: keys, dtypes or shapes are not those of the store.
        """
        steps = steps.exclude(("next", "done"))
        if not self._kept:
            self._check_layout(steps)
        rewards = steps["next", "reward"].double()
        self._kept.append(steps)
        self._episodes.append(EpisodeLine(len(steps), float(rewards.sum()), start, len(self._manifest["sources"]) - 1))
        self._bytes += steps.bytes()
        if self._bytes >= FILE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes what was added; on disk when this returns."""
        if not self._kept:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        tensors = _flat(TensorDict.cat(self._kept))
        files = self._manifest["files"]
        number = len(files)
        steps, episodes = f"steps-{number:05d}.safetensors", f"episodes-{number + 1:05d}.jsonl"
        write_atomically(self.path / steps, lambda partial: save_file(tensors, partial))
        write_text(self.path / episodes, "".join(episode.line() for episode in self._episodes))
        counts = {"steps": sum(episode.length for episode in self._episodes), "episodes": len(self._episodes)}
        for name, kind in ((steps, "steps"), (episodes, "episodes")):
            files.append({"name": name, "kind": kind, "count": counts[kind], **digest(self.path / name)})
        write_json(self.path / MANIFEST, self._manifest)
        self._kept, self._episodes, self._bytes = [], [], 0

    def _check_layout(self, steps: TensorDictBase) -> None:
        first = next((entry for entry in self._manifest["files"] if entry["kind"] == "steps"), None)
        if first is None:
            return
        there, given = _layout(map_steps(self.path / first["name"])), _layout(_flat(steps))
        if there != given:
            raise StoreError(
                f"{self.path} holds other steps: expected {sorted(there - given)}, got {sorted(given - there)}; "
                "say --frames or --no-frames as for those, or name another directory"
            )


def _manifest_to_extend(path: Path, environment: Mapping[str, Any] | None) -> dict[str, Any]:
    """The manifest that is there, or that of a store without files."""
    environment = None if environment is None else json.loads(json.dumps(environment))
    if not (path / MANIFEST).exists():
        foreign = [file.name for file in path.glob("*") if not file.name.strip(".").startswith(("steps-", "episodes-"))]
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
