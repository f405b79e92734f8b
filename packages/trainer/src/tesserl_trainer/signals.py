"""Handle SIGINT, SIGTERM and SIGHUP as callbacks or exceptions, and end a process with its parent."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""Not on Windows."""


PARENT = "TESSERL_PARENT"
"""Environment variable with the id of the parent process; the command stops when this parent ends."""

LOOK = 1.0
"""Seconds between two checks of the parent."""


class Stopped(Exception):  # noqa: N818 - a requested stop is no error
    """A signal stopped a command in order; the message says what remains to do, and how to continue."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum


class StopNow(BaseException):
    """A signal that ends a command at any point, like ``KeyboardInterrupt``; context managers still close."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum
        self.exit_code = 128 + signum


@contextmanager
def on_signals(handle: Callable[[int], object], *, interrupt: bool = True) -> Iterator[Callable[[], None]]:
    """Call a function for signals that end a process; do nothing outside of the main thread, which gets no signals.

    These are SIGINT, SIGTERM and SIGHUP. The end of an SSH session sends SIGHUP; under ``nohup`` it stays ignored.

    Args:
        handle: called with the number of each signal.
        interrupt: also handle SIGINT.

    Yields:
        Function that restores the earlier handlers before the context ends.
    """
    numbers = _stopping(interrupt) if threading.current_thread() is threading.main_thread() else ()

    def hear(signum: int, _: object) -> None:
        if signum == HANGUP:  # shell and kernel both send one: the second is no request to hurry
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
    """Send this process SIGTERM when the process in `PARENT` is no longer its parent."""
    parent = os.environ.pop(PARENT, "")  # removed: child processes have another parent
    if parent.isdecimal():
        threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK)
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def stopped_in_order() -> Iterator[None]:
    """Raise ``StopNow`` at SIGTERM and SIGHUP, so that workers end, files close and locks are released."""

    def stop(signum: int) -> None:
        raise StopNow(signum)

    with on_signals(stop, interrupt=False):
        yield


def _stopping(interrupt: bool) -> tuple[int, ...]:
    hangup = () if HANGUP is None or signal.getsignal(HANGUP) is signal.SIG_IGN else (HANGUP,)
    return (*((signal.SIGINT,) if interrupt else ()), signal.SIGTERM, *hangup)
