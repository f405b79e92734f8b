"""Files that are either whole or not there: written beside, synced, renamed."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets ``write`` fill a temporary sibling of ``path``, then renames it into place, synced at both ends."""
    partial = path.with_name(f".{path.name}.partial")
    write(partial)
    sync(partial)
    partial.replace(path)
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def json_text(document: Any, *, indent: int | None = 2) -> str:
    """Return data as JSON text that every parser reads; a number that is not finite becomes null."""
    return json.dumps(_finite(document), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def write_json(path: Path, document: Any) -> None:
    """Write JSON data atomically; see `json_text`."""
    write_text(path, json_text(document) + "\n")


def check_places(files: Mapping[str, Path | None]) -> None:
    """Refuses files that nothing could be written to, before the minutes that what is written takes.

    Args:
        files: by the option that names each; None where it was not given.

    Raises:
        ValueError: the directory of one is not there.
    """
    for option, file in files.items():
        if file is not None and not (place := file.parent).is_dir():
            raise ValueError(f"{option} {file}: there is no directory {place}; make it first: mkdir -p {place}")


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """The descriptor of a file or a directory, closed in the end."""
    descriptor = os.open(path, flags, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Flushes a file or a directory to the disk."""
    with opened(path, os.O_RDONLY) as descriptor:
        os.fsync(descriptor)


def digest(path: Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
        return {"bytes": file.tell(), "sha256": sha256.hexdigest()}
