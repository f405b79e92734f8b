"""Files of a store: written whole or not at all, described by a manifest, verified before use."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FORMAT, FORMAT_VERSION = "tesserl-preference-pairs", 1
MANIFEST = "manifest.json"


class StoreError(ValueError):
    """A store that is missing, damaged or not ours; the message names the file, and the pair where it is one."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file under another name; when that is done it is synced and takes its place.

    Args:
        path: where it belongs.

    Yields:
        Where to write it.
    """
    partial = path.with_name(f".{path.name}.partial")
    yield partial
    sync(partial)
    partial.replace(path)
    sync(path.parent)


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
        raise StoreError(
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


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Iterate over the objects of a file of JSON lines.

    Args:
        path: of the file.

    Yields:
        Where a line stands, for messages, and its object.

    Raises:
        StoreError: a line is cut off, or is no JSON object.
    """
    with path.open(encoding="utf-8") as handle:
        for number, line in enumerate(handle, start=1):
            where = f"{path}:{number}"
            try:
                value = json.loads(line)
            except ValueError as error:
                raise StoreError(f"{where}: the line cannot be read: {error}") from error
            if not isinstance(value, dict) or not line.endswith("\n"):
                raise StoreError(f"{where}: a line must be one whole JSON object, got {line[:80]!r}")
            yield where, value


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
