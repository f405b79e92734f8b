"""SIGINT, SIGTERM and SIGHUP as events."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""Not on Windows."""


@contextmanager
def on_signals(handle: Callable[[int], object]) -> Iterator[Callable[[], None]]:
    """Meanwhile signals that end a process are handed to a function; not outside of the main thread, which gets none.

    SIGINT, SIGTERM, and SIGHUP, which the end of an SSH session sends, unless it is ignored as below ``nohup``.

    Args:
        handle: called with the number of each signal.

    Yields:
        What gives the signals back to whom they went before, as the end of the context does.
    """
    numbers = _stopping() if threading.current_thread() is threading.main_thread() else ()

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


def _stopping() -> tuple[int, ...]:
    if HANGUP is None or signal.getsignal(HANGUP) is signal.SIG_IGN:
        return signal.SIGINT, signal.SIGTERM
    return signal.SIGINT, signal.SIGTERM, HANGUP
