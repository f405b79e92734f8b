"""Files that grow: each piece is appended whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType


class AppendedFile:
    """A file to which whole pieces are appended: after an append that failed it is what it was before.

    Args:
        path: of the file, made if there is none.
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
            sync: whether it shall be on disk when this returns.

        Raises:
            OSError: it cannot be written, for example on a full disk; nothing of it is in the file.
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
        """Wait until what has been appended is on disk."""
        with naming(self.path):
            os.fsync(self._file.fileno())

    def flush(self) -> None:
        """Return at once: nothing is buffered."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give the name of a file to errors of writing it, which come without one."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def whole_lines(path: Path) -> bytes:
    """Return the lines of a file of JSON lines, without one that an interrupted append has left unfinished.

    Args:
        path: of the file; there may be none.

    Returns:
        Its bytes. They end with a newline unless there are none: a last line that is whole but for its newline gets it.
    """
    data = path.read_bytes() if path.exists() else b""
    lines, end, rest = data.rpartition(b"\n")
    try:
        return lines + end + (rest + b"\n" if isinstance(json.loads(rest), dict) else b"")
    except ValueError:
        return lines + end


def remove_unfinished_line(path: Path) -> None:
    """Bring a file of JSON lines to what `whole_lines` returns, for the next line to be appended.

    Args:
        path: of the file; there may be none. No other process may append to it meanwhile.
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
