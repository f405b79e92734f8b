"""Write and read checkpoints: atomic, verified, without pickle.

``checkpoints/step_000050000/`` holds ``networks.safetensors``, ``optimizer.safetensors``, ``state.safetensors``,
``state.json``, ``environments.json`` and, written last, ``manifest.json``. The manifest has the identity of the run,
size and SHA-256 of every file, and the SHA-256 of its own content. The directory is written under a temporary name,
synced and renamed, so that a checkpoint is either complete or absent. Replay is stored separately, in segments
(``replay_segments.py``); ``run_checkpoints.py`` manages the checkpoints of a run.
"""

import functools
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from tesserl_analysis import run_files
from tesserl_storage.digests import difference, digest
from tesserl_storage.errors import StorageError
from tesserl_storage.fields import Fields
from tesserl_storage.sealed_json import open_seal, read_object, write_sealed
from tesserl_storage.tensors import load_tensors
from tesserl_storage.whole_files import whole_directory
from tesserl_training.checkpoints.files import FILES, read_state, write_state
from tesserl_training.checkpoints.names import step_of
from tesserl_training.checkpoints.run_identity import FORMAT_VERSION, Identity, require_version

__all__ = ["Checkpoint", "load_checkpoint", "load_networks", "read_manifest", "verify"]

VERSIONED = (
    *("tesserl-trainer", "tesserl-training", "tesserl-actor-critic", "tesserl-collectors", "tesserl-grpo"),
    *("tesserl-iqn", "tesserl-nn-components", "tesserl-preference-opt", "tesserl-ranks", "tesserl-storage"),
    *("torch", "torchrl", "tensordict", "gymnasium"),
)
"""Distributions whose versions a manifest records, if they are installed."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint in memory."""

    path: Path
    manifest: dict[str, Any]
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """Return the environment step of the checkpoint."""
        return int(self.manifest["step"])


def write_checkpoint(
    path: Path,
    step: int,
    state: Mapping[str, Any],
    *,
    identity: Identity | None = None,
    segments: Sequence[Mapping[str, Any]] = (),
    rank_segments: Sequence[Sequence[Mapping[str, Any]]] = (),
    record: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint.

    Args:
        path: directory of the checkpoint; it must not exist.
        step: environment steps so far.
        state: nested state. ``networks`` and ``optimizer`` go to separate files, ``environments`` to a JSON file, the
            rest to ``state``. ``best`` is also in the manifest.
        identity: identity of the run; None outside of a run.
        segments: entries of the checkpoint's replay segments.
        rank_segments: the entries of ranks 1, 2, ..., if there are several ranks.
        record: size and SHA-256 of ``metrics.csv`` up to this step; None if there is none.

    Raises:
        OSError: writing failed, for example on a full disk; no partial files are left.
    """
    manifest = {
        "format_version": FORMAT_VERSION,
        "run_id": identity.run_id if identity else None,
        "config_sha256": identity.config_sha256 if identity else None,
        "step": step,
        "best": state.get("best"),
        "record": record,
        "versions": versions(),
        "replay": list(segments),
        **({"rank_replay": [list(each) for each in rank_segments]} if rank_segments else {}),
    }
    with whole_directory(path) as directory:
        write_state(directory, state)
        files = {file.name: digest(file) for file in sorted(directory.iterdir())}
        write_sealed(directory / run_files.MANIFEST, {**manifest, "files": files})


def load_networks(path: Path, identity: Identity | None = None) -> dict[str, Tensor]:
    """Return only the networks of a checkpoint, as a flat state dictionary.

    Args:
        path: directory of the checkpoint.
        identity: see `read_manifest`.

    Raises:
        StorageError: the networks are missing or damaged, or belong to another run or format.
    """
    name = "networks.safetensors"
    verify(path, {name: read_manifest(path, identity)["files"][name]})
    with _errors(path):
        return {key.removeprefix("networks."): value for key, value in load_tensors(path / name).items()}


def load_checkpoint(path: Path, identity: Identity | None = None) -> Checkpoint:
    """Read a checkpoint, verifying every byte first.

    Args:
        path: directory of the checkpoint.
        identity: see `read_manifest`.

    Raises:
        StorageError: the checkpoint is missing, incomplete or damaged, belongs to another run or format, or holds a
            file that its manifest does not list.
    """
    manifest = read_manifest(path, identity)
    verify(path, manifest["files"])
    if unlisted := sorted({file.name for file in path.iterdir()} - {*manifest["files"], run_files.MANIFEST}):
        raise StorageError(f"{path}: {', '.join(unlisted)} is not in its manifest; remove it, or use another one")
    with _errors(path):
        return Checkpoint(path, manifest, read_state(path))


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turn the various errors of inconsistent files into a `StorageError`."""
    try:
        yield
    except (AttributeError, LookupError, OSError, RecursionError, SafetensorError, TypeError, ValueError) as error:
        raise StorageError(f"{path}: its files match the manifest but do not fit together: {error!r}") from error


def read_manifest(path: Path, identity: Identity | None = None) -> dict[str, Any]:
    """Return the manifest of a checkpoint.

    Args:
        path: directory of the checkpoint.
        identity: identity of the run that the checkpoint must belong to; None accepts any run.

    Raises:
        StorageError: the manifest is missing or damaged, or belongs to another format or run.
    """
    file = path / run_files.MANIFEST
    if not file.is_file():
        raise StorageError(f"{path}: no checkpoint here ({file.name} is missing); name a step_* directory of a run")
    document = read_object(file)
    require_version(file, document.get("format_version"))
    manifest = open_seal(file, document)
    fields = Fields(manifest, str(file))
    step, named = fields.integer("step"), step_of(path.name)
    if named is not None and named != step:
        raise StorageError(f"{file}: this is the checkpoint of step {step}, in the directory of step {named}")
    for name in FILES:
        _check_entry(fields.fields("files"), name)
    if unknown := sorted(set(manifest["files"]) - set(FILES)):
        raise StorageError(f"{file}: files: expected {', '.join(FILES)}, got {', '.join(unknown)} too")
    if fields.take("record") is not None:
        _check_entry(fields, "record")
    fields.take("best")
    for entry in fields.items("replay"):
        Fields(entry, f"{file}: replay").text("file")
    if identity is not None:
        _check_identity(file, fields, identity)
    return manifest


def replay_entries(manifest: Mapping[str, Any], rank: int) -> list[dict[str, Any]]:
    """Return the entries of the replay segments of a rank in a manifest.

    Raises:
        StorageError: the manifest has no entries for the rank.
    """
    if rank == 0:
        return list(manifest["replay"])
    parts = Fields(manifest, "manifest.json").items("rank_replay")
    if len(parts) < rank:
        raise StorageError(f"manifest.json: rank_replay: expected the replay of rank {rank}, got {len(parts)} ranks")
    return list(parts[rank - 1])


def _check_entry(fields: Fields, name: str) -> None:
    entry = fields.fields(name)
    entry.integer("bytes")
    entry.text("sha256")


def _check_identity(file: Path, fields: Fields, identity: Identity) -> None:
    if fields.take("run_id") != identity.run_id:
        raise StorageError(
            f"{file}: a checkpoint of the run {fields.take('run_id')}, expected one of this run, {identity.run_id}; "
            "put back the run's own, or resume that run in its own directory"
        )
    if fields.take("config_sha256") != identity.config_sha256:
        raise StorageError(f"{file}: made with another configuration than this run's; put back the run's own files")


def verify(directory: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Compare size and SHA-256 of every file with the manifest.

    Raises:
        StorageError: a file is missing, truncated or altered.
    """
    for name, expected in files.items():
        if (found := difference(directory / name, expected["bytes"], expected["sha256"])) is not None:
            raise StorageError(f"{directory / name}: {found}; the checkpoint is incomplete, use another one")


def versions() -> dict[str, str]:
    """Return the versions of a run's dependencies, and the git commit of the current directory if there is one."""
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        with suppress(PackageNotFoundError):  # the trainer may be absent
            found[name] = version(name)
    return found if (commit := _commit()) is None else {**found, "commit": commit}


@functools.cache
def _commit() -> str | None:
    """Return the checked-out commit of the current directory's repository; None without a repository or git."""
    command = ["git", "rev-parse", "--verify", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
