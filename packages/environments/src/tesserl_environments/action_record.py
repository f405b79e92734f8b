"""Record the actions of a running episode, so that it can be replayed."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_ACTIONS = 40_000
"""Longest episode, in steps, that can be replayed. ale_py's longest episode has 32,000 steps by default. A record
of this length takes 0.3 MB of memory per action dimension, and up to 1 MB in a checkpoint."""


class ActionRecord:
    """Actions in order. Recording stops after ``MAX_ACTIONS``, so that an endless episode does not fill the memory."""

    def __init__(self, limit: int = MAX_ACTIONS) -> None:
        self._limit = limit
        self._buffer: NDArray[Any] = np.zeros(0)
        self._count = 0
        self.is_complete = True

    def __len__(self) -> int:
        """Return the number of recorded actions."""
        return self._count

    def clear(self) -> None:
        """Begin a new episode."""
        self._count, self.is_complete = 0, True

    def append(self, action: Any) -> None:
        """Record a copy of an action, because its array may be overwritten."""
        if self._count == len(self._buffer):
            self._grow(np.asarray(action))
        if self.is_complete:
            self._buffer[self._count] = action
            self._count += 1

    def load(self, actions: Iterable[Any]) -> None:
        """Replace the record by these actions."""
        self.clear()
        for action in actions:
            self.append(action)

    def plain(self) -> list[Any] | None:
        """Return the actions as JSON data; None if there were more than ``MAX_ACTIONS``."""
        return self._buffer[: self._count].tolist() if self.is_complete else None

    def _grow(self, action: NDArray[Any]) -> None:
        if self._count == self._limit or not self.is_complete:
            self._buffer, self._count, self.is_complete = np.zeros(0), 0, False
            return
        larger = np.zeros((min(max(16, 2 * self._count), self._limit), *action.shape), action.dtype)
        larger[: self._count] = self._buffer[: self._count] if self._count else 0
        self._buffer = larger
