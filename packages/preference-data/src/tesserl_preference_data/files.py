"""Files of a store: written whole or not at all, described by a manifest, verified before use."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from tesserl_preference_data.appending import naming, whole_lines

FORMAT, FORMAT_VERSION = "tesserl-preference-pairs", 1
MANIFEST = "manifest.json"

PARTIAL = ".partial"
"""Ends the names of files and directories that are being written."""


class StoreError(ValueError):
    """A store that is missing, damaged or not ours; the message names the file, and the pair where it is one."""


class NoStoreError(StoreError):
    """A directory that is named as a store and holds none; the exit code is that of wrong usage."""

    exit_code = 2


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file under another name; when that is done it is synced and takes its place.

    Args:
        path: where it belongs.

    Yields:
        Where to write it: a name that no other process uses. Nothing is left there if writing fails.

    Raises:
        OSError: it cannot be written, for example on a full disk.
    """
    partial = partial_name(path)
    with naming(path):
        try:
            yield partial
            sync(partial)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        sync(path.parent)


def partial_name(path: Path) -> Path:
    """Return a name beside a path, for what is not whole yet, that no other process uses."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")


def remove_partial(directory: Path) -> None:
    """Remove what killed processes have left in a directory that no other process writes into."""
    for partial in directory.glob(f".*{PARTIAL}"):
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, with the mode that the umask gives to every new file.

    Args:
        path: of the file.
        tensors: contiguous ones on the CPU that share no memory.
        metadata: text for the header.

    Raises:
        OSError: it cannot be written, for example on a full disk.
    """
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:  # it has the number of an error of the system in its text
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        raise
    path.chmod(mode)  # safetensors makes files that only their owner can read


def sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on disk.

    Args:
        path: of it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def describe(path: Path, kind: str, count: int) -> dict[str, Any]:
    """Return a file's entry of the manifest.

    Args:
        path: of the file.
        kind: ``"segments"`` or ``"pairs"``.
        count: how many are in it.
    """
    return {"name": path.name, "kind": kind, "size": path.stat().st_size, "sha256": _digest(path), "count": count}


def verify_file(path: Path, entry: dict[str, Any], *, digest: bool) -> None:
    """Compare a file with its entry of the manifest.

    Args:
        path: of the file.
        entry: what `describe` returned.
        digest: whether the whole file is read.

    Raises:
        StoreError: it is missing, or differs.
    """
    if not path.is_file():
        raise StoreError(f"{path} is missing; restore the file, or make the pairs again")
    if path.stat().st_size != entry["size"]:
        raise StoreError(f"{path} must have {entry['size']} bytes, got {path.stat().st_size}; restore the file")
    if digest and _digest(path) != entry["sha256"]:
        raise StoreError(f"{path} was changed: its SHA-256 is not that of the manifest; restore the file")


def write_manifest(directory: Path, files: list[dict[str, Any]]) -> None:
    """Make files the store, in one step.

    Args:
        directory: of the store.
        files: their entries.
    """
    manifest = {"format": FORMAT, "format_version": FORMAT_VERSION, "files": files}
    with replacing(directory / MANIFEST) as partial:
        partial.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def read_manifest(directory: Path) -> list[dict[str, Any]]:
    """Return the entries of a store's files.

    Args:
        directory: of the store.

    Raises:
        StoreError: there is no store, or it is of another format.
    """
    path = directory / MANIFEST
    if not path.is_file():
        raise NoStoreError(
            f"{directory} holds no pairs: {path} is missing; make a store with save_pairs, or with tesserl pairs make"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"{path} cannot be read: {error}; restore the file") from error
    found = (manifest.get("format"), manifest.get("format_version")) if isinstance(manifest, dict) else manifest
    if found != (FORMAT, FORMAT_VERSION):
        raise StoreError(f"{path} must be of format {FORMAT!r}, version {FORMAT_VERSION}, got {found}")
    return manifest["files"]


def json_lines(path: Path, *, growing: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Iterate over the objects of a file of JSON lines.

    Args:
        path: of the file.
        growing: ignore a last line that an interrupted append has left unfinished.

    Yields:
        Where a line stands, for messages, and its object.

    Raises:
        StoreError: a line is cut off, or is no JSON object.
    """
    with io.BytesIO(whole_lines(path)) if growing else path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{path}:{number}"
            try:
                value = json.loads(line)
            except ValueError as error:
                raise StoreError(f"{where}: the line cannot be read: {error}") from error
            if not isinstance(value, dict) or not line.endswith(b"\n"):
                raise StoreError(f"{where}: a line must be one whole JSON object, got {line[:80]!r}")
            yield where, value


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
