"""A key-value store that all ranks can reach, with a time limit for every operation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Store(Protocol):
    """A key-value store that all ranks can reach; the subset of torch's ``Store`` that is used."""

    def set(self, key: str, value: str) -> None:
        """Write a value."""

    def get(self, key: str) -> bytes:
        """Return the value of an existing key."""

    def add(self, key: str, amount: int) -> int:
        """Add to a counter; return the sum."""

    def check(self, keys: list[str]) -> bool:
        """Return whether all keys exist."""


class PatientStore:
    """A store with a time limit for every operation; torch's operations wait forever for a lost machine.

    Args:
        store: store on the machine of rank 0.
        limit: time limit of each operation in seconds.
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
        """Return the value of an existing key."""
        return self._limited(lambda: self._store.get(key))

    def add(self, key: str, amount: int) -> int:
        """Add to a counter; return the sum."""
        return self._limited(lambda: self._store.add(key, amount))

    def check(self, keys: list[str]) -> bool:
        """Return whether all keys exist."""
        return self._limited(lambda: self._store.check(keys))

    def _limited(self, operation: Callable[[], T]) -> T:
        """Run an operation in a thread, which is abandoned if it gets no answer.

        Raises:
            RuntimeError: the operation failed, or got no answer in time.
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
