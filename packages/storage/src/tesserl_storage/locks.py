"""Lock a directory, so that only one process at a time writes into it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"
"""Name of the lock file in a directory; it is never removed."""

OWNER_SUFFIX = ".owner.json"
"""Suffix of the file that describes the holder of a lock; it exists only while the lock is held."""


class InUseError(RuntimeError):
    """Another process uses a directory; the message names the process."""

    exit_code = 1


@contextmanager
def locked(directory: Path, *, doing: str, remedy: str, name: str = LOCK, timeout: float = 10.0) -> Iterator[None]:
    """Hold a lock on a directory; other processes that call this function must wait.

    Args:
        directory: directory, which must exist.
        doing: activity of the lock's holder, as a verb phrase for messages: ``"trains here"``.
        remedy: advice to the user, if the lock is held.
        name: name of the lock file. Locks with different names are independent.
        timeout: seconds to wait for another process, at least 0.

    Raises:
        InUseError: another process holds the lock. The message gives its process id, its host and the start time.
    """
    lock, owner = FileLock(directory / name), directory / f"{name}{OWNER_SUFFIX}"
    try:
        lock.acquire(timeout=timeout, poll_interval=0.05)
    except Timeout:
        raise InUseError(f"{directory}: {_described(owner)} {doing}; {remedy}") from None
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        with suppress(OSError):  # on a full disk, messages cannot name the holder
            owner.write_text(
                json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}), encoding="utf-8"
            )
        yield
    finally:
        with suppress(OSError):
            owner.unlink(missing_ok=True)
        lock.release()


def is_lock(name: str) -> bool:
    """Return whether a file name belongs to a lock."""
    return name.removesuffix(OWNER_SUFFIX).endswith(LOCK)


def _described(owner: Path) -> str:
    """Return a description of the process that holds a lock."""
    try:
        known = json.loads(owner.read_text(encoding="utf-8"))
        return f"another process ({known['pid']} on {known['host']}, since {known['since']})"
    except (KeyError, OSError, TypeError, ValueError):
        return "another process"
