"""Supervises workers: records which was asked what and when, and acts on those that die, hang or answer nonsense.

It knows no engine: a `Transport` starts, asks and kills the workers, and a clock tells the time.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tesserl_environments import WorkerError


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


class _Worker:
    """State of one worker."""

    def __init__(self) -> None:
        self.life = 0
        self.is_ready = False
        self.question: Question | None = None  # that has no answer yet
        self.content: Any = None
        self.version = 0
        self.heard = 0.0  # when it was started, asked, or last showed progress


class Supervisor:
    """Asks workers and waits for their answers.

    Args:
        transport: reaches the workers.
        num_workers: number of workers.
        start_timeout: seconds for a worker to start.
        worker_timeout: seconds without progress after which a worker that was asked is lost.
        max_restarts: workers that are replaced during a run; one more is an error.
        check: return what is wrong with an answer to a question; None if nothing is.
        name: names a worker in messages.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        transport: Transport,
        num_workers: int,
        *,
        start_timeout: float,
        worker_timeout: float,
        max_restarts: int = 0,
        check: Callable[[Question, Any], str | None] = lambda question, content: None,  # noqa: ARG005
        name: Name = collector_name,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.transport, self.num_workers = transport, num_workers
        self.start_timeout, self.worker_timeout = start_timeout, worker_timeout
        self._max_restarts, self._check, self._name, self._clock = max_restarts, check, name, clock
        self._workers = [_Worker() for _ in range(num_workers)]
        self._number = 0
        self.restarts = self.accepted_steps = self.lost_steps = 0

    def start(self) -> None:
        """Start all workers without waiting for them."""
        for index in range(self.num_workers):
            self._start(index)

    def ask(
        self,
        worker: int,
        name: str,
        arguments: dict[str, Any],
        *,
        steps: int = 0,
        version: int = 0,
        timeout: float | None = None,
    ) -> None:
        """Ask a worker; a worker that is still starting is asked as soon as it is ready.

        Args:
            worker: index of the worker.
            name: of what is asked for.
            arguments: of the request.
            steps: environment steps that the answer will hold.
            version: of the weights that the answer is made with; it never falls.
            timeout: seconds without progress; None takes ``worker_timeout``.

        Raises:
            ValueError: the worker still has a question, or the version is older than that of its last question.
        """
        asked = self._workers[worker]
        if asked.question is not None:
            raise ValueError(f"worker {worker} still has question {asked.question.number}; wait for its answer")
        if version < asked.version:
            raise ValueError(f"version must be at least {asked.version}, got {version}; weights never become older")
        self._number += 1
        timeout = self.worker_timeout if timeout is None else timeout
        asked.question = Question(self._number, name, arguments, steps, version, timeout)
        asked.version = version
        if asked.is_ready:
            self._send(worker)

    def wait_until_ready(self) -> None:
        """Wait until all workers have started, so that a question reaches each of them at once.

        Raises:
            WorkerError: see ``answers``.
            Exception: the error that a worker raised.
        """
        while starting := [index for index, worker in enumerate(self._workers) if not worker.is_ready]:
            self._wait(starting)

    def answers(self) -> list[Any]:
        """Wait for the answers of all workers; return them in the order of the workers, whatever order they came in.

        Raises:
            WorkerError: a worker died, hung or answered nonsense, and no restart is left.
            Exception: the error that a worker raised.
        """
        while waiting := [index for index, worker in enumerate(self._workers) if worker.question is not None]:
            self._wait(waiting)
        return [worker.content for worker in self._workers]

    def _wait(self, waiting: Sequence[int]) -> None:
        """Wait for the next events of workers, at most until the first of these is late."""
        timeout = min(map(self._deadline, waiting)) - self._clock()
        # what has arrived counts, however long nobody looked; only then is a worker late
        for event in self.transport.wait(max(timeout, 0.0)):
            self._handle(event)
        self._lose_late_workers(waiting)

    def _start(self, index: int) -> None:
        worker = self._workers[index]
        worker.is_ready, worker.heard = False, self._clock()
        self.transport.start(index, worker.life)

    def _send(self, index: int) -> None:
        worker = self._workers[index]
        worker.heard = self._clock()
        if worker.question is not None:
            self.transport.ask(index, worker.question)

    def _handle(self, event: Event) -> None:
        """Take note of an event; those of a replaced worker, and answers to no open question, have no effect."""
        worker = self._workers[event.worker]
        if event.life != worker.life:
            return
        match event:
            case Ready() if not worker.is_ready:
                worker.is_ready = True
                self._send(event.worker)
            case Progress():
                worker.heard = self._clock()
            case Answer() if worker.question is not None and event.number == worker.question.number:
                self._accept(event, worker.question)
            case Lost():
                self._lose(event.worker, event.error)

    def _accept(self, answer: Answer, question: Question) -> None:
        wrong = self._check(question, answer.content)
        if wrong is not None:
            self._lose(answer.worker, WorkerError(f"{self._name(answer.worker)} {wrong}"))
            return
        worker = self._workers[answer.worker]
        worker.question, worker.content = None, answer.content
        self.accepted_steps += question.steps

    def _deadline(self, index: int) -> float:
        worker = self._workers[index]
        if not worker.is_ready or worker.question is None:
            return worker.heard + self.start_timeout
        return worker.heard + worker.question.timeout

    def _lose_late_workers(self, waiting: Sequence[int]) -> None:
        now = self._clock()
        for index in waiting:
            worker = self._workers[index]
            if now < self._deadline(index):
                continue
            if not worker.is_ready:
                late = f"did not start within {self.start_timeout:g} s; raise environment.start_timeout"
            elif worker.question is not None:
                late = f"made no step within {worker.question.timeout:g} s; raise environment.worker_timeout"
            else:
                continue
            self._lose(index, WorkerError(f"{self._name(index)} {late} if the task takes that long"))

    def _lose(self, index: int, error: Exception) -> None:
        """Replace a worker, whose question goes to the new one; raise the error if no restart is left."""
        self.transport.kill(index)
        worker = self._workers[index]
        if worker.question is not None:
            self.lost_steps += worker.question.steps
        if self.restarts >= self._max_restarts:
            raise error
        self.restarts += 1
        worker.life += 1
        self._start(index)
