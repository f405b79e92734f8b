"""Actions of a running episode, kept to be played again."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_ACTIONS = 40_000
"""Steps of an episode that can be played again: more than the 32,000 of the longest game of ale_py by default. A record
of so many actions takes 0.3 MB of memory for each number of an action, and up to 1 MB in a checkpoint."""


class ActionRecord:
    """Actions in their order; too many are given up, so that an endless episode does not fill the memory."""

    def __init__(self, limit: int = MAX_ACTIONS) -> None:
        self._limit = limit
        self._buffer: NDArray[Any] = np.zeros(0)
        self._count = 0
        self.is_complete = True

    def __len__(self) -> int:
        """Return the number of actions that are kept."""
        return self._count

    def clear(self) -> None:
        """Begin with a new episode."""
        self._count, self.is_complete = 0, True

    def append(self, action: Any) -> None:
        """Keep a copy of an action, which may be a row of an array that is used again."""
        if self._count == len(self._buffer):
            self._grow(np.asarray(action))
        if self.is_complete:
            self._buffer[self._count] = action
            self._count += 1

    def load(self, actions: Iterable[Any]) -> None:
        """Begin with actions that are known."""
        self.clear()
        for action in actions:
            self.append(action)

    def plain(self) -> list[Any] | None:
        """Return the actions as JSON data; None if they have become too many."""
        return self._buffer[: self._count].tolist() if self.is_complete else None

    def _grow(self, action: NDArray[Any]) -> None:
        if self._count == self._limit or not self.is_complete:
            self._buffer, self._count, self.is_complete = np.zeros(0), 0, False
            return
        larger = np.zeros((min(max(16, 2 * self._count), self._limit), *action.shape), action.dtype)
        larger[: self._count] = self._buffer[: self._count] if self._count else 0
        self._buffer = larger
