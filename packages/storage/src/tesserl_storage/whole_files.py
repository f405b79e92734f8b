"""Write files and directories atomically: under a temporary name, then synced and renamed."""

import errno
import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tesserl_storage.appending import naming

PARTIAL = ".partial"
"""Suffix of files and directories that are being written."""


@contextmanager
def replacing(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Write a file under a temporary name, then sync and rename it.

    Args:
        path: path of the file.
        overwrite: whether to replace an existing file.

    Yields:
        The temporary path, which no other process uses. It is removed if writing fails.

    Raises:
        FileExistsError: the file exists and ``overwrite`` is false.
        OSError: it cannot be written, for example on a full disk.
    """
    partial = partial_name(path)
    try:
        yield partial
        sync(partial)
        if overwrite:
            partial.replace(path)
        else:
            _link(partial, path)
    except OSError as error:
        if error.filename in (None, str(partial), partial):  # write errors lack a file name
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)
    sync(path.parent)


def write_atomically(path: Path, write: Callable[[Path], object], *, overwrite: bool = True) -> None:
    """Write a file atomically by a function that gets the temporary path of `replacing`.

    Args:
        path: path of the file.
        write: called with the temporary path.
        overwrite: whether to replace an existing file.

    Raises:
        FileExistsError: the file exists and ``overwrite`` is false.
        OSError: it cannot be written, for example on a full disk.
    """
    with replacing(path, overwrite=overwrite) as partial:
        write(partial)


def _link(partial: Path, path: Path) -> None:
    """Rename a file unless the new name exists."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # the file system has no links: a file may still appear between the check and the renaming
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        partial.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def json_text(document: Any, *, indent: int | None = 2) -> str:
    """Return data as standard JSON text; numbers that are not finite become null."""
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
    """Open a descriptor of a file or directory for a ``with`` block."""
    descriptor = os.open(path, flags, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Flush a file or a directory to disk."""
    with opened(path, os.O_RDONLY) as descriptor:
        os.fsync(descriptor)


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Fill a directory under a temporary name, then sync its files and rename it.

    Args:
        path: path of the directory, which must not exist.

    Yields:
        The temporary directory, which no other process uses. It is removed if filling it fails.

    Raises:
        OSError: the directory cannot be written, for example on a full disk, or it exists.
    """
    partial = partial_name(path)
    partial.mkdir(parents=True)
    try:
        with naming(path):
            yield partial
            for file in partial.iterdir():
                sync(file)
            partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    sync(path.parent)


def partial_name(path: Path) -> Path:
    """Return a temporary path in the same directory that no other process uses."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")


def remove_partial(directory: Path) -> None:
    """Remove temporary files of killed processes from a directory; no other process may write into it."""
    for partial in directory.glob(f".*{PARTIAL}"):
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)
