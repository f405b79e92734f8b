"""SIGINT, SIGTERM and SIGHUP: as events, as exceptions, and out of the way of worker processes."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""Not on Windows."""


PARENT = "TESSERL_PARENT"
"""Environment variable: number of the process with which a command ends."""

LOOK = 1.0
"""Seconds between two looks at the parent."""


class Stopped(Exception):  # noqa: N818 - not an error: the command was asked to stop, and did
    """A signal stopped a command in good order; the message says what is left, and how it goes on."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum


class StopNow(BaseException):
    """A signal that ends a command wherever it is, like ``KeyboardInterrupt``: whatever is open gets closed."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum
        self.exit_code = 128 + signum


@contextmanager
def on_signals(handle: Callable[[int], object], *, interrupt: bool = True) -> Iterator[Callable[[], None]]:
    """Hand signals that end a process to a function; not outside of the main thread, which gets none.

    SIGINT, SIGTERM, and SIGHUP, which the end of an SSH session sends, unless it is ignored as below ``nohup``.

    Args:
        handle: called with the number of each signal.
        interrupt: SIGINT too.

    Yields:
        Function that gives the signals back to their handlers from before, as the end of the context does.
    """
    numbers = _stopping(interrupt) if threading.current_thread() is threading.main_thread() else ()

    def hear(signum: int, _: object) -> None:
        if signum == HANGUP:  # the shell sends one and the kernel another: the second asks nobody to hurry
            signal.signal(signum, signal.SIG_IGN)
        handle(signum)

    before = {number: signal.signal(number, hear) for number in numbers}

    def give_back() -> None:
        for number, handler in before.items():
            if signal.getsignal(number) is hear:
                signal.signal(number, handler)

    try:
        yield give_back
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent() -> None:
    """Stop this process as SIGTERM does once the process that `PARENT` names is its parent no longer."""
    parent = os.environ.pop(PARENT, "")  # processes that this one starts have another parent
    if parent.isdecimal():
        threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK)
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def stopped_in_order() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into ``StopNow``, so that workers end, files close and locks are released."""

    def stop(signum: int) -> None:
        raise StopNow(signum)

    with on_signals(stop, interrupt=False):
        yield


def _stopping(interrupt: bool) -> tuple[int, ...]:
    hangup = () if HANGUP is None or signal.getsignal(HANGUP) is signal.SIG_IGN else (HANGUP,)
    return (*((signal.SIGINT,) if interrupt else ()), signal.SIGTERM, *hangup)
