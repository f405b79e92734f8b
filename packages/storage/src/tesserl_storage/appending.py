"""Append to files atomically: each piece is written completely or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType


class AppendedFile:
    """A file to which complete pieces are appended; a failed append leaves it unchanged.

    Args:
        path: path of the file, which is created if it does not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        # Unbuffered: a buffer that could not be written would be written again when the file is closed
        self._file = self.path.open("ab", buffering=0)

    def __enter__(self) -> AppendedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, data: bytes, *, sync: bool = False) -> None:
        """Append a piece.

        Args:
            data: the piece.
            sync: whether to wait until the piece is on disk.

        Raises:
            OSError: the piece cannot be written, for example on a full disk; the file is unchanged.
        """
        end = os.fstat(self._file.fileno()).st_size
        with naming(self.path):
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[self._file.write(rest) :]
                if sync:
                    os.fsync(self._file.fileno())
            except BaseException:
                with suppress(OSError):
                    self._file.truncate(end)
                raise

    def sync(self) -> None:
        """Wait until all appended pieces are on disk."""
        with naming(self.path):
            os.fsync(self._file.fileno())

    def flush(self) -> None:
        """Return at once: nothing is buffered."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the name of a file to write errors, which lack it."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def whole_lines(path: Path) -> bytes:
    """Return the complete lines of a JSON lines file, without a last line that an interrupted append left unfinished.

    Args:
        path: path of the file, which may not exist.

    Returns:
        The lines as bytes. They end with a newline, which is added to a last line that lacks only this, or they are
        empty.
    """
    data = path.read_bytes() if path.exists() else b""
    lines, end, rest = data.rpartition(b"\n")
    try:
        return lines + end + (rest + b"\n" if isinstance(json.loads(rest), dict) else b"")
    except ValueError:
        return lines + end


def remove_unfinished_line(path: Path) -> None:
    """Reduce a JSON lines file to the lines that `whole_lines` returns, so that another line can be appended.

    Args:
        path: path of the file, which may not exist. No other process may append to it meanwhile.
    """
    if not path.exists():
        return
    with path.open("rb+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return
        whole = whole_lines(path)
        if len(whole) > size:
            file.write(b"\n")
        else:
            file.truncate(len(whole))
