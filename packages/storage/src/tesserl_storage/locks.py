"""Exclusive access to a directory: one process at a time writes into it."""

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
"""Name of the file in a directory that is locked; it stays there."""

OWNER_SUFFIX = ".owner.json"
"""Added to the name of a lock: the file that says who holds it, there only while it is held."""


class InUseError(RuntimeError):
    """Another process is at work in a directory; the message names it."""

    exit_code = 1


@contextmanager
def locked(directory: Path, *, doing: str, remedy: str, name: str = LOCK, timeout: float = 10.0) -> Iterator[None]:
    """Keep other processes out of a directory, if they ask in the same way.

    Args:
        directory: it must exist.
        doing: activity of those that ask, as a verb phrase for the refusal: ``"trains here"``.
        remedy: what a person can do about a refusal.
        name: file in the directory that is locked. Locks of different names do not exclude each other.
        timeout: seconds to wait for another process, at least 0.

    Raises:
        InUseError: another process holds the lock. The message has its process id, its host, and since when.
    """
    lock, owner = FileLock(directory / name), directory / f"{name}{OWNER_SUFFIX}"
    try:
        lock.acquire(timeout=timeout, poll_interval=0.05)
    except Timeout:
        raise InUseError(f"{directory}: {_described(owner)} {doing}; {remedy}") from None
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        with suppress(OSError):  # a full disk: the refusal of others then names nobody
            owner.write_text(
                json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}), encoding="utf-8"
            )
        yield
    finally:
        with suppress(OSError):
            owner.unlink(missing_ok=True)
        lock.release()


def is_lock(name: str) -> bool:
    """Return whether a file of this name belongs to a lock."""
    return name.removesuffix(OWNER_SUFFIX).endswith(LOCK)


def _described(owner: Path) -> str:
    """Return what is known of the process that holds a lock."""
    try:
        known = json.loads(owner.read_text(encoding="utf-8"))
        return f"another process ({known['pid']} on {known['host']}, since {known['since']})"
    except (KeyError, OSError, TypeError, ValueError):
        return "another process"
