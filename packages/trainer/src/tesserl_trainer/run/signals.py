"""SIGINT and SIGTERM as events."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def on_signals(handle: Callable[[int], object]) -> Iterator[Callable[[], None]]:
    """Meanwhile SIGINT and SIGTERM are handed to a function; not outside of the main thread, which gets no signals.

    Args:
        handle: called with the number of each signal.

    Yields:
        What gives the signals back to whom they went before, as the end of the context does.
    """
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, lambda signum, _: handle(signum)) for number in numbers}

    def give_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield give_back
    finally:
        give_back()
