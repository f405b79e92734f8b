"""Keys and values that all ranks can reach, with a time limit for every operation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Store(Protocol):
    """Keys and values that all ranks can reach; the methods of torch's ``Store`` that are used."""

    def set(self, key: str, value: str) -> None:
        """Write a value."""

    def get(self, key: str) -> bytes:
        """Return a value, which must be there."""

    def add(self, key: str, amount: int) -> int:
        """Add to a counter; return the sum."""

    def check(self, keys: list[str]) -> bool:
        """Return whether all keys are there."""


class PatientStore:
    """A store whose operations have a time limit; those of torch wait forever for a machine that is gone.

    Args:
        store: on the machine of rank 0.
        limit: seconds that each operation may take.
    """

    def __init__(self, store: Store, limit: float) -> None:
        self._store, self.limit = store, limit

    def within(self, limit: float) -> PatientStore:
        """Return the same store with another time limit."""
        return PatientStore(self._store, min(limit, self.limit))

    def set(self, key: str, value: str) -> None:
        """Write a value."""
        self._limited(lambda: self._store.set(key, value))

    def get(self, key: str) -> bytes:
        """Return a value, which must be there."""
        return self._limited(lambda: self._store.get(key))

    def add(self, key: str, amount: int) -> int:
        """Add to a counter; return the sum."""
        return self._limited(lambda: self._store.add(key, amount))

    def check(self, keys: list[str]) -> bool:
        """Return whether all keys are there."""
        return self._limited(lambda: self._store.check(keys))

    def _limited(self, operation: Callable[[], T]) -> T:
        """Run an operation in a thread, which is left behind if there is no answer.

        Raises:
            RuntimeError: the operation failed, or had no answer in time.
        """
        answers, errors = list[T](), list[RuntimeError]()

        def run() -> None:
            try:
                answers.append(operation())
            except RuntimeError as error:
                errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(self.limit)
        if errors:
            raise errors[0]
        if not answers:
            raise RuntimeError(f"the store did not answer for {self.limit:g} s")
        return answers[0]
