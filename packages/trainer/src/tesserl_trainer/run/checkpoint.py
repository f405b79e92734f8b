"""Checkpoints: whole, verified, never unpickled.

``checkpoints/step_000050000/`` holds ``networks.safetensors``, ``optimizer.safetensors``, ``state.safetensors``,
``state.json``, ``environments.json`` and, written last, ``manifest.json`` with the size and SHA-256 of every file. The
directory is filled under another name, synced and renamed, so that a checkpoint is either whole or not there.
``latest.json`` and ``best.json`` name a directory. Replay lives in segments beside (``segments.py``).
"""

import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tesserl_trainer.run.files import digest, sync, write_json
from tesserl_trainer.run.state import join_state, split_state

FORMAT_VERSION = 1
TENSOR_FILES = ("networks", "optimizer", "state")
"""Top-level entries of a state whose tensors have a file of their own; the tensors of all others are in ``state``."""


class CheckpointError(Exception):
    """A checkpoint that is missing, damaged or not ours. Nothing has been changed when it is raised."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint in memory."""

    path: Path
    manifest: dict[str, Any]
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """Environment steps at which it was taken."""
        return int(self.manifest["step"])


class Checkpoints:
    """The checkpoints of one run.

    Args:
        run_dir: directory of the run.
        keep_last: number of newest checkpoints that stay.
        keep_best: whether the best evaluated one stays too.
    """

    def __init__(self, run_dir: Path, *, keep_last: int = 2, keep_best: bool = True) -> None:
        self.directory = run_dir / "checkpoints"
        self._keep_last, self._keep_best = keep_last, keep_best

    def save(self, step: int, state: Mapping[str, Any], *, segments: Sequence[Mapping[str, Any]] = ()) -> Path:
        """Writes a checkpoint and makes it the latest.

        Args:
            step: environment steps so far; no checkpoint of this step is there yet.
            state: nested state: ``networks`` and ``optimizer`` get files of their own, ``environments`` a JSON file,
                the rest is ``state``.
            segments: entries of the replay segments that belong to it.

        Returns:
            Its directory.
        """
        path = self.directory / checkpoint_name(step)
        partial = self.directory / f".{path.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write_state(partial, state)
        files = {file.name: digest(file) for file in sorted(partial.iterdir())}
        for name in files:
            sync(partial / name)
        manifest = {"format_version": FORMAT_VERSION, "step": step, "versions": versions(), "files": files}
        write_json(partial / "manifest.json", {**manifest, "replay": list(segments)})
        partial.rename(path)
        sync(self.directory)
        write_json(self.directory / "latest.json", {"checkpoint": path.name})
        return path

    def rewind(self, step: int, best: Mapping[str, Any] | None) -> list[str]:
        """Removes what is newer than ``step``, and names the best checkpoint that was known then.

        Args:
            step: of the checkpoint from which the run continues.
            best: content of ``best.json`` at that step; ``None`` where nothing had been evaluated.

        Returns:
            The names of the checkpoints that are gone.
        """
        newer = sorted(path for path in self.directory.glob("step_*") if path.name > checkpoint_name(step))
        for path in newer:
            shutil.rmtree(path)
        write_json(self.directory / "latest.json", {"checkpoint": checkpoint_name(step)})
        (self.directory / "best.json").unlink(missing_ok=True)
        if best is not None and (self.directory / best["checkpoint"]).is_dir():
            write_json(self.directory / "best.json", best)
        return [path.name for path in newer]

    def mark_best(self, best: Mapping[str, Any]) -> None:
        """Names the best checkpoint: ``{"checkpoint": directory name, "return_mean": of its evaluation}``."""
        write_json(self.directory / "best.json", dict(best))

    def prune(self) -> list[Path]:
        """Removes what need not be kept; returns the checkpoints that stay, oldest first."""
        for partial in self.directory.glob(".*.partial"):
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
        paths = sorted(self.directory.glob("step_*"))
        keep = {*self.newest(), self.latest()}
        if self._keep_best:
            keep.add(self.best())
        for path in paths:
            if path not in keep:
                shutil.rmtree(path)
        return [path for path in paths if path in keep]

    def newest(self) -> list[Path]:
        """The newest checkpoints that stay, oldest first."""
        return sorted(self.directory.glob("step_*"))[-self._keep_last :]

    def latest(self) -> Path | None:
        """The checkpoint that ``latest.json`` names, or ``None`` where the run has none yet."""
        return self._named("latest.json")

    def best(self) -> Path | None:
        """The checkpoint that ``best.json`` names; ``None`` where nothing was evaluated, or it was not kept."""
        best = self._named("best.json")
        return best if best is not None and best.is_dir() else None

    def _named(self, name: str) -> Path | None:
        pointer = self.directory / name
        if not pointer.exists():
            return None
        return self.directory / str(_read_json(pointer)["checkpoint"])


def checkpoint_name(step: int) -> str:
    """Name of the directory of the checkpoint of a step; names sort like steps."""
    return f"step_{step:09d}"


def load_networks(path: Path) -> dict[str, Tensor]:
    """The networks of a checkpoint alone, as a flat state dictionary.

    Raises:
        CheckpointError: they are missing, damaged, or of another format.
    """
    name = "networks.safetensors"
    files = read_manifest(path)["files"]
    verify(path, {name: files[name]})
    return {key.removeprefix("networks."): value for key, value in _load_tensors(path / name).items()}


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint, verifying every byte first.

    Args:
        path: its directory.

    Raises:
        CheckpointError: it is missing, incomplete, damaged, or of another format.
    """
    manifest = read_manifest(path)
    verify(path, manifest["files"])
    try:
        tensors: dict[str, Tensor] = {}
        for name in TENSOR_FILES:
            tensors |= _load_tensors(path / f"{name}.safetensors")
        document = {**_read_json(path / "state.json"), "environments": _read_json(path / "environments.json")}
        return Checkpoint(path, manifest, join_state(document, tensors))
    except (KeyError, OSError, SafetensorError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its files match the manifest but do not fit together: {error!r}") from error


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint.

    Raises:
        CheckpointError: there is none, or its format is not this one.
    """
    manifest_path = path / "manifest.json"
    if not manifest_path.is_file():
        raise CheckpointError(
            f"{path}: no checkpoint here (manifest.json is missing); name a step_* directory of a run"
        )
    manifest = _read_json(manifest_path)
    if not isinstance(manifest, dict) or manifest.get("format_version") != FORMAT_VERSION or "files" not in manifest:
        got = manifest.get("format_version") if isinstance(manifest, dict) else type(manifest).__name__
        raise CheckpointError(
            f"{manifest_path}: expected format_version {FORMAT_VERSION}, got {got}; "
            "this is a foreign checkpoint or one of another Tesserl version"
        )
    return manifest


def verify(directory: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Compares size and SHA-256 of every file with the manifest's.

    Raises:
        CheckpointError: a file is missing, truncated or altered.
    """
    for name, expected in files.items():
        file = directory / name
        if not file.is_file():
            raise CheckpointError(f"{file}: missing; the checkpoint is incomplete, use another one")
        got = digest(file)
        if got["bytes"] != expected["bytes"]:
            raise CheckpointError(f"{file}: expected {expected['bytes']} bytes, got {got['bytes']}; use another one")
        if got["sha256"] != expected["sha256"]:
            raise CheckpointError(f"{file}: SHA-256 differs from the manifest's (altered or damaged); use another one")


def versions() -> dict[str, str]:
    """Versions of what a run depends on."""
    ours = ("trainer", "actor-critic", "grpo", "iqn", "nn-components", "preference-opt")
    names = (*(f"tesserl-{name}" for name in ours), "torch", "torchrl", "tensordict", "gymnasium")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _write_state(directory: Path, state: Mapping[str, Any]) -> None:
    document, tensors = split_state(state)
    environments = document.pop("environments", None)
    files: dict[str, dict[str, Tensor]] = {name: {} for name in TENSOR_FILES}
    for name, tensor in tensors.items():
        owner = name.split(".", 1)[0]
        files[owner if owner in TENSOR_FILES else "state"][name] = tensor
    for name, group in files.items():
        _save_tensors(directory / f"{name}.safetensors", group)
    (directory / "state.json").write_text(json.dumps(document, allow_nan=False), encoding="utf-8")
    (directory / "environments.json").write_text(json.dumps(environments, allow_nan=False), encoding="utf-8")


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes tensors; one with several owners is stored once, its other names stand in the header."""
    stored: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    owners: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors.items():
        identity = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)
        owner = owners.setdefault(identity, name) if tensor.numel() else name
        if owner != name:
            aliases[name] = owner
        else:
            stored[name] = tensor.cpu().clone(memory_format=torch.contiguous_format)
    save_file(stored, path, metadata={"aliases": json.dumps(aliases)})


def _load_tensors(path: Path) -> dict[str, Tensor]:
    tensors = load_file(path)
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    for name, owner in json.loads(header["__metadata__"]["aliases"]).items():
        tensors[name] = tensors[owner]
    return tensors


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error}); the checkpoint is damaged") from error
