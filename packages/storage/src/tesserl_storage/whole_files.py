"""Files that are either whole or not there: written beside, synced, renamed."""

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
"""Ends the names of files and directories that are being written."""


@contextmanager
def replacing(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Write a file under another name; when that is done it is synced and gets its own.

    Args:
        path: of the file.
        overwrite: replace a file that is there.

    Yields:
        Where to write it: a name that no other process uses. Nothing is left there if writing fails.

    Raises:
        FileExistsError: there is a file, and it is not to be replaced.
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
        if error.filename in (None, str(partial), partial):  # an error of writing comes without a name
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)
    sync(path.parent)


def write_atomically(path: Path, write: Callable[[Path], object], *, overwrite: bool = True) -> None:
    """Write a file by a function that gets the name of `replacing`.

    Args:
        path: of the file.
        write: called with the other name.
        overwrite: replace a file that is there.

    Raises:
        FileExistsError: there is a file, and it is not to be replaced.
        OSError: it cannot be written, for example on a full disk.
    """
    with replacing(path, overwrite=overwrite) as partial:
        write(partial)


def _link(partial: Path, path: Path) -> None:
    """Give a file its name unless there is a file of that name."""
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


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Fill a directory under another name; when that is done its files are synced and it gets its own.

    Args:
        path: of the directory, which is not there yet.

    Yields:
        The directory to fill, with a name that no other process uses. Nothing is left of it if filling it fails.

    Raises:
        OSError: it cannot be written, for example on a full disk; or there is a directory of its name.
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
    """Return a name beside a path, for what is not whole yet, that no other process uses."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")


def remove_partial(directory: Path) -> None:
    """Remove what killed processes have left in a directory that no other process writes into."""
    for partial in directory.glob(f".*{PARTIAL}"):
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)
