"""Files that are either whole or not there: written beside, synced, renamed."""

import errno
import hashlib
import json
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], object], *, overwrite: bool = True) -> None:
    """Write a file under another name, then give it its own; it is synced before and after.

    Args:
        path: of the file.
        write: called with the other name, which no other process uses. Nothing is left there if it fails.
        overwrite: replace a file that is there.

    Raises:
        FileExistsError: there is a file, and it is not to be replaced.
        OSError: it cannot be written, for example on a full disk.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        write(partial)
        sync(partial)
        if overwrite:
            partial.replace(path)
        else:
            _link(partial, path)
    except OSError as error:
        if error.filename in (None, str(partial), partial):  # an error of writing comes without a name
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)
    sync(path.parent)


def _link(partial: Path, path: Path) -> None:
    """Give a file its name unless there is a file of that name.

    Raises:
        FileExistsError: there is one.
    """
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: between the check and the renaming a file may still appear
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        partial.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
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


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """Open a descriptor of a file or directory and close it at the end."""
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
