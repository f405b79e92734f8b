"""Interface of an engine that runs workers: its operations, questions to workers and their events."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Question:
    """A question to a worker.

    Args:
        number: number of the question; it increases from question to question.
        name: name of the question.
        arguments: arguments of the question.
        steps: environment steps that the answer will contain.
        version: version of the weights for the answer.
        timeout: seconds without progress after which the worker is lost.
    """

    number: int
    name: str
    arguments: dict[str, Any]
    steps: int
    version: int
    timeout: float


@dataclass(frozen=True)
class Event:
    """A message of a worker, with the number of the worker's life (0, then one more per restart)."""

    worker: int
    life: int


@dataclass(frozen=True)
class Ready(Event):
    """The worker has started."""


@dataclass(frozen=True)
class Progress(Event):
    """The worker has made progress on its question."""


@dataclass(frozen=True)
class Answer(Event):
    """The answer to a question."""

    number: int
    content: Any


@dataclass(frozen=True)
class Lost(Event):
    """The worker raised an error or died; ``error`` names the worker."""

    error: Exception


@dataclass(frozen=True)
class Received:
    """An accepted answer, with its question and the life of the worker."""

    worker: int
    life: int
    question: Question
    content: Any


Name = Callable[[int], str]
"""Returns the name of a worker for messages."""


def collector_name(worker: int) -> str:
    """Return the name of a collector worker."""
    return f"collector worker {worker}"


class Transport(Protocol):
    """The four operations of an engine."""

    def start(self, worker: int, life: int) -> None:
        """Start a worker; it sends `Ready` when it can be asked."""

    def ask(self, worker: int, question: Question) -> None:
        """Send a question to a worker that is ready; a worker that is gone sends `Lost`."""

    def wait(self, timeout: float) -> Sequence[Event]:
        """Return the events that have arrived, after at most ``timeout`` seconds; may return early without events."""

    def kill(self, worker: int) -> None:
        """End a worker at once."""
