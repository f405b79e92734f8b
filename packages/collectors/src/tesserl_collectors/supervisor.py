"""Supervise workers: track their questions, and replace workers that die, hang or give invalid answers.

It is independent of the engine: a `Transport` starts, asks and kills the workers.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from tesserl_collectors.transport import (
    Answer,
    Event,
    Lost,
    Name,
    Progress,
    Question,
    Ready,
    Received,
    Transport,
    collector_name,
)
from tesserl_environments import WorkerError
from tesserl_storage.errors import StorageError
from tesserl_storage.fields import Fields

MOST_TOLD = 300
"""Largest length of an error in the list of events, in characters."""


class _Worker:
    """State of one worker."""

    def __init__(self) -> None:
        self.life = 0
        self.is_ready = False
        self.has_answered = False  # since its last restart
        self.question: Question | None = None  # open question
        self.received: Received | None = None
        self.version = 0
        self.heard = 0.0  # time of its start, its question or its last progress, whichever is latest


class Supervisor:
    """Ask workers, wait for their answers, and replace lost workers.

    The first answer after a start may take ``start_timeout``, because the worker resets its environments.

    Args:
        transport: starts, asks and kills the workers.
        num_workers: number of workers.
        start_timeout: seconds for a worker to start.
        worker_timeout: seconds without progress after which a worker with an open question is lost.
        max_restarts: largest number of replaced workers per run; another loss is an error.
        repeats: whether the replacement of a lost worker gets its question; otherwise the question is dropped.
        replays: whether the replacement gives exactly the answer that was lost.
        fatal: errors that are raised at once, because every other worker would raise them too.
        block: block of the configuration with the timeouts, for messages.
        check: describes an invalid answer to a question; returns None for a valid one.
        name: returns the name of a worker for messages.
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
        repeats: bool = True,
        replays: bool = False,
        fatal: tuple[type[Exception], ...] = (),
        block: str = "environment",
        check: Callable[[Question, Any], str | None] = lambda question, content: None,  # noqa: ARG005
        name: Name = collector_name,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.transport, self.num_workers = transport, num_workers
        self.start_timeout, self.worker_timeout, self.max_restarts = start_timeout, worker_timeout, max_restarts
        self._repeats, self._replays, self._fatal, self._block = repeats, replays, fatal, block
        self._check, self._name, self._clock = check, name, clock
        self._workers = [_Worker() for _ in range(num_workers)]
        self._arrived: list[Received] = []
        self._number = 0
        self._is_started = False
        self.restarts = self.accepted_steps = self.lost_steps = 0
        self.exact = True
        self.events: list[dict[str, Any]] = []
        self.step = 0
        """Environment steps of the run so far, for ``events``."""

    def start(self) -> None:
        """Start all workers without waiting for them; otherwise the first question starts them."""
        self._is_started = True
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
            name: name of the question.
            arguments: arguments of the question.
            steps: environment steps that the answer will contain.
            version: version of the weights for the answer; it must not decrease.
            timeout: seconds without progress after which the worker is lost; None for ``worker_timeout``.

        Raises:
            ValueError: the worker has an open question, or the version is older than that of its last question.
        """
        asked = self._workers[worker]
        if asked.question is not None:
            raise ValueError(f"worker {worker} still has question {asked.question.number}; wait for its answer")
        if version < asked.version:
            raise ValueError(f"version must be at least {asked.version}, got {version}; weights never become older")
        if not self._is_started:
            self.start()
        self._number += 1
        timeout = self.worker_timeout if timeout is None else timeout
        asked.question = Question(self._number, name, arguments, steps, version, timeout)
        asked.version = version
        if asked.is_ready:
            self._send(worker)

    def answers(self) -> list[Any]:
        """Wait for the answers of all workers; return them in the order of the workers.

        Raises:
            WorkerError: a worker died, hung or gave an invalid answer, and no restart is left.
            Exception: the error of a worker.
        """
        while any(worker.question is not None for worker in self._workers):
            self._wait(None)
        self._arrived.clear()
        return [None if worker.received is None else worker.received.content for worker in self._workers]

    def wait_until_ready(self) -> None:
        """Wait until all workers have started, so that questions reach them immediately.

        Raises:
            WorkerError: see ``answers``.
            Exception: the error of a worker.
        """
        while not all(worker.is_ready for worker in self._workers):
            self._wait(None)

    def receive(self, timeout: float) -> list[Received]:
        """Return the answers that have arrived, in order of arrival, after at most ``timeout`` seconds.

        Args:
            timeout: seconds; the call may return earlier, even without an answer.

        Raises:
            WorkerError: see ``answers``.
        """
        if not self._is_started:
            self.start()
        if not self._arrived:
            self._wait(timeout)
        arrived, self._arrived = self._arrived, []
        return arrived

    @property
    def idle(self) -> list[int]:
        """Workers that are ready and have no open question."""
        return [i for i, worker in enumerate(self._workers) if worker.is_ready and worker.question is None]

    @property
    def open_versions(self) -> dict[int, int]:
        """Version of the weights of each open question, by worker."""
        return {i: each.question.version for i, each in enumerate(self._workers) if each.question is not None}

    @property
    def lives(self) -> list[int]:
        """Number of restarts of each worker."""
        return [worker.life for worker in self._workers]

    def metrics(self) -> dict[str, float]:
        """Return the counts of lost workers and of lost steps."""
        return {"workers/restarts": self.restarts, "workers/lost_steps": self.lost_steps}

    def state_dict(self) -> dict[str, Any]:
        """Return the numbers of restarts and the counts."""
        return {"lives": self.lives, "restarts": self.restarts, "lost_steps": self.lost_steps}

    def load_state_dict(self, state: Mapping[str, Any], *, anew: bool) -> None:
        """Continue from ``state_dict``; call it before the first question.

        Args:
            state: result of ``state_dict``.
            anew: treat every worker as restarted instead of continuing it.

        Raises:
            StorageError: the state has another number of workers.
        """
        fields = Fields(state, "collector.supervisor")
        lives = fields.integers("lives")
        if len(lives) != self.num_workers:
            raise StorageError(f"{fields.where}: expected the lives of {self.num_workers} workers, got {len(lives)}")
        if self._is_started:
            raise RuntimeError("load the state of a supervisor before its first question")
        for worker, life in zip(self._workers, lives, strict=True):
            worker.life = life + anew
        self.restarts, self.lost_steps = fields.integer("restarts"), fields.integer("lost_steps")

    def _wait(self, timeout: float | None) -> None:
        """Wait until an event arrives or a worker is late, and handle it."""
        deadlines = [self._deadline(index) for index in range(self.num_workers) if self._is_waited_for(index)]
        patience = max(min(deadlines, default=math.inf) - self._clock(), 0.0)
        # handle all events first, so that a worker whose answer waits here does not count as late
        for event in self.transport.wait(patience if timeout is None else min(patience, timeout)):
            self._handle(event)
        self._lose_late_workers()

    def _start(self, index: int) -> None:
        worker = self._workers[index]
        worker.is_ready = worker.has_answered = False
        worker.heard = self._clock()
        self.transport.start(index, worker.life)

    def _send(self, index: int) -> None:
        worker = self._workers[index]
        worker.heard = self._clock()
        if worker.question is not None:
            self.transport.ask(index, worker.question)

    def _handle(self, event: Event) -> None:
        """Handle an event; ignore events of replaced workers and answers to closed questions."""
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
        worker.question, worker.has_answered = None, True
        worker.received = Received(answer.worker, worker.life, question, answer.content)
        self._arrived.append(worker.received)
        self.accepted_steps += question.steps

    def _is_waited_for(self, index: int) -> bool:
        worker = self._workers[index]
        return worker.question is not None or not worker.is_ready

    def _deadline(self, index: int) -> float:
        worker = self._workers[index]
        return worker.heard + (self._patience(worker) if worker.is_ready else self.start_timeout)

    def _patience(self, worker: _Worker) -> float:
        """Return the timeout of the worker's open question, in seconds."""
        timeout = self.worker_timeout if worker.question is None else worker.question.timeout
        return timeout if worker.has_answered else max(timeout, self.start_timeout)

    def _lose_late_workers(self) -> None:
        now, block = self._clock(), self._block
        for index, worker in enumerate(self._workers):
            if not self._is_waited_for(index) or now < self._deadline(index):
                continue
            if not worker.is_ready:
                late = f"did not start within {self.start_timeout:g} s; raise {block}.start_timeout"
            else:
                key = "worker_timeout" if worker.has_answered else "start_timeout"
                late = f"made no step within {self._patience(worker):g} s; raise {block}.{key}"
            self._lose(index, WorkerError(f"{self._name(index)} {late} if the task takes that long"))

    def _lose(self, index: int, error: Exception) -> None:
        """Replace a worker; raise the error if no restart is left."""
        self.transport.kill(index)
        worker = self._workers[index]
        lost = 0 if worker.question is None else worker.question.steps
        self.lost_steps += lost
        if self.restarts >= self.max_restarts or isinstance(error, self._fatal):
            raise error
        lines = str(error).strip().splitlines()
        told = " ".join(dict.fromkeys((lines[0], lines[-1]))) if lines else type(error).__name__
        self.events.append(
            {
                "event": "lost worker",
                "step": self.step,
                "worker": index,
                "life": worker.life,
                "lost_steps": lost,
                "error": told[:MOST_TOLD],
            }
        )
        self.restarts += 1
        self.exact = self.exact and self._replays
        worker.life += 1
        if not self._repeats:
            worker.question = None
        self._start(index)
