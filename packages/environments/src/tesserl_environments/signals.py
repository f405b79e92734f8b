"""Make worker processes ignore signals that would end them; their parent handles these signals."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""None on Windows."""


@contextmanager
def held_back() -> Iterator[None]:
    """Block these signals while processes are started; the processes inherit the block until ``leave_to_parent``.

    Otherwise a signal to the process group would end a process that does not ignore it yet.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        from multiprocessing import resource_tracker  # imported only if processes are started

        # start multiprocessing's tracker process now; the first worker would start it and so unblock two signals
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_to_parent() -> None:
    """Ignore these signals in a worker process; its parent handles them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # a handler instead of SIG_IGN: processes of the task do not inherit it, so SIGTERM can end them
    signal.signal(signal.SIGTERM, lambda *_: None)
    if HANGUP is not None:
        signal.signal(HANGUP, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
