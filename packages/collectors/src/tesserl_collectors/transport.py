"""Interface of an engine that runs workers: its operations, the questions to workers and what comes back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Question:
    """A request to a worker.

    Args:
        number: of the question; later questions have larger ones.
        name: of what is asked for.
        arguments: of the request.
        steps: environment steps that the answer will hold.
        version: of the weights that the answer is made with.
        timeout: seconds without a sign of progress after which the worker is lost.
    """

    number: int
    name: str
    arguments: dict[str, Any]
    steps: int
    version: int
    timeout: float


@dataclass(frozen=True)
class Event:
    """A message of a worker, with the life of the worker that sent it."""

    worker: int
    life: int


@dataclass(frozen=True)
class Ready(Event):
    """The worker has started."""


@dataclass(frozen=True)
class Progress(Event):
    """The worker is at work on its question."""


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
    """An answer that was accepted, with its question and the life of the worker."""

    worker: int
    life: int
    question: Question
    content: Any


Name = Callable[[int], str]
"""Names a worker in messages."""


def collector_name(worker: int) -> str:
    """Return the name of a collector worker."""
    return f"collector worker {worker}"


class Transport(Protocol):
    """The four operations of an engine."""

    def start(self, worker: int, life: int) -> None:
        """Start a worker; it sends `Ready` once it can be asked."""

    def ask(self, worker: int, question: Question) -> None:
        """Send a question to a worker that is ready; a worker that is gone sends `Lost`."""

    def wait(self, timeout: float) -> Sequence[Event]:
        """Return what has arrived, after at most ``timeout`` seconds; it may return early without an event."""

    def kill(self, worker: int) -> None:
        """End a worker at once, whatever it does."""
