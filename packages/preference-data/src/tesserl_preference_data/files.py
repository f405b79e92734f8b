"""Files of a store: written atomically, listed in a manifest, verified before use."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from tesserl_storage.appending import whole_lines
from tesserl_storage.digests import difference, digest
from tesserl_storage.whole_files import write_json

FORMAT, FORMAT_VERSION = "tesserl-preference-pairs", 1
MANIFEST = "manifest.json"


class StoreError(ValueError):
    """A store is missing, damaged or of another kind; the message names the file and, if possible, the pair."""


class NoStoreError(StoreError):
    """A directory does not contain a store; the exit code is that of wrong usage."""

    exit_code = 2


def describe(path: Path, kind: str, count: int) -> dict[str, Any]:
    """Return a file's entry of the manifest of pairs.

    Args:
        path: of the file.
        kind: ``"segments"`` or ``"pairs"``.
        count: number of segments or pairs in the file.
    """
    found = digest(path)
    return {"name": path.name, "kind": kind, "size": found["bytes"], "sha256": found["sha256"], "count": count}


def verify_file(path: Path, size: int, sha256: str | None, *, remedy: str = "make the pairs again") -> None:
    """Compare a file with its entry in the manifest.

    Args:
        path: of the file.
        size: expected size in bytes.
        sha256: expected SHA-256; None compares only the size.
        remedy: advice to the user, besides restoring the file.

    Raises:
        StoreError: the file is missing or differs.
    """
    if (found := difference(path, size, sha256)) is not None:
        raise StoreError(f"{path}: {found}; restore the file, or {remedy}")


def write_manifest(directory: Path, files: list[dict[str, Any]]) -> None:
    """Write the manifest, which makes the files a store, atomically."""
    write_json(directory / MANIFEST, {"format": FORMAT, "format_version": FORMAT_VERSION, "files": files})


def read_manifest(directory: Path) -> list[dict[str, Any]]:
    """Return the entries of the files of a store of pairs.

    Args:
        directory: of the store.

    Raises:
        StoreError: there is no store, or it is of another format.
    """
    remedy = "make a store with save_pairs, or with tesserl pairs make"
    files: list[dict[str, Any]] = read_document(directory, FORMAT, FORMAT_VERSION, content="pairs", remedy=remedy)[
        "files"
    ]
    return files


def read_document(directory: Path, name: str, version: int, *, content: str, remedy: str) -> dict[str, Any]:
    """Return the manifest of a store.

    Args:
        directory: of the store.
        name: of its format.
        version: of its format.
        content: kind of content, for messages.
        remedy: advice for making a store, for messages.

    Raises:
        StoreError: there is no store, or it is of another format.
    """
    path = directory / MANIFEST
    if not path.is_file():
        raise NoStoreError(f"{directory} holds no {content}: {path} is missing; {remedy}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"{path} cannot be read: {error}; restore the file") from error
    found = (manifest.get("format"), manifest.get("format_version")) if isinstance(manifest, dict) else manifest
    if found != (name, version):
        raise StoreError(f"{path} must be of format {name!r}, version {version}, got {found}")
    return dict(manifest)


def map_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, memory-mapped."""
    try:
        with safe_open(path, "pt") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (it is no mapping)
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error


def json_lines(path: Path, *, growing: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Iterate over the objects of a file of JSON lines.

    Args:
        path: of the file.
        growing: ignore a last line that an interrupted append has left unfinished.

    Yields:
        The place of a line, for messages, and its object.

    Raises:
        StoreError: a line is incomplete, or is not a JSON object.
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
