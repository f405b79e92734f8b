"""Signals that end a process, kept away from worker processes: their parent decides what the signals mean."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""Not on Windows."""


@contextmanager
def held_back() -> Iterator[None]:
    """Hold these signals back while processes are started, which inherit that until ``leave_to_parent``.

    Otherwise a signal to the whole group ends a process that has not come to ignoring it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        from multiprocessing import resource_tracker  # not for those who start no process

        # a process of multiprocessing's own, which the first worker would start; starting it releases two signals
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_to_parent() -> None:
    """Ignore these signals in a worker's process: its parent decides what they mean."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # a handler, which processes of the task do not inherit: they can be ended by SIGTERM
    signal.signal(signal.SIGTERM, lambda *_: None)
    if HANGUP is not None:
        signal.signal(HANGUP, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
