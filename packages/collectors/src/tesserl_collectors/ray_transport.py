"""Collector workers as Ray actors on any machine of a cluster: a transport for `Supervisor`."""

import contextlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import ray
import torch
from torch import Tensor

from tesserl_collectors.processes import Make, Serving, sent_error
from tesserl_collectors.transport import Answer, Event, Lost, Question, Ready, collector_name
from tesserl_collectors.weights import SentWeights, flatten
from tesserl_environments import WorkerError

GET_TIMEOUT = 30.0
"""Seconds to transfer a finished answer over the network."""

Ref = Any
"""A reference to a Ray object."""


class RayWeights:
    """The learner's side of the weights: one Ray object per version, at most two at a time.

    A worker copies its weights before it collects. A version is kept until all its workers have copied it.
    """

    def __init__(self) -> None:
        self.ref: Ref = None
        """The newest version."""

        self.loading: dict[Ref, int] = {}
        """Versions that workers are copying, by the Ray call."""

        self._version = -1

    def has_room(self, reading: Collection[int]) -> bool:  # noqa: ARG002 - copies are shorter than questions
        """Return whether all workers have copied the older versions, see `Weights`."""
        if self.loading:
            done, _ = ray.wait(list(self.loading), num_returns=len(self.loading), timeout=0.0)
            for call in done:
                del self.loading[call]
        return all(version == self._version for version in self.loading.values())

    def publish(self, tensors: Mapping[str, Tensor], version: int) -> None:
        """Put the tensors into Ray's store, as one vector per dtype."""
        self.has_room(())  # drops finished calls
        self.ref, self._version = ray.put(flatten(tensors)), version


class Actor:
    """The Ray actor of a worker.

    Args:
        made_of: function that makes the worker's side, and the weights that this side loads; passed as one object, so
            that both refer to the same weights.
        worker: index of the worker.
        life: number of earlier processes of this worker.
        passed_on: errors that are sent unchanged; for others only the text is sent.
    """

    def __init__(
        self, made_of: tuple[Make, SentWeights], worker: int, life: int, passed_on: tuple[type[Exception], ...]
    ) -> None:
        torch.set_num_threads(1)
        self._make, self._weights = made_of
        self._worker, self._life, self._passed_on = worker, life, passed_on
        self._side: Serving | None = None

    def begin(self) -> tuple[Any, ...]:
        """Make the worker's side; return the ids of the process and the node."""

        def report() -> None:
            """Do nothing: with Ray the learner waits only for answers."""

        def make() -> tuple[Any, ...]:
            self._side = self._make(self._worker, self._life, report)
            return "ready", os.getpid(), ray.get_runtime_context().get_node_id()

        return self._told(make)

    def load(self, flat: Any, version: int) -> None:
        """Store weights for the next question."""
        self._weights.put(flat, version)

    def answer(self, number: int, name: str, arguments: dict[str, Any]) -> tuple[Any, ...]:
        """Return the answer to a question."""
        side = self._side
        if side is None:
            raise RuntimeError("begin first")
        return self._told(lambda: ("answer", number, side.answer(name, arguments)))

    def close(self) -> None:
        """Close the environments."""
        if self._side is not None:
            self._side.close()

    def _told(self, act: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
        try:
            return act()
        except Exception as error:  # noqa: BLE001 - whatever it is, the learner is told
            return "error", sent_error(collector_name(self._worker), error, self._passed_on)


class _Line:
    """The learner's side of one actor."""

    def __init__(self, actor: Any, life: int) -> None:
        self.actor, self.life = actor, life
        self.pid: int | None = None
        """Process id of the actor, if it is on this machine."""


class RayTransport:
    """Start, ask and kill actors; each takes one CPU of the cluster.

    Args:
        make: makes the side that answers.
        received: weights that the worker's side loads.
        weights: weights that the learner publishes; the newest are sent before each question named ``collect``.
        passed_on: errors of a worker that are raised here as they are.
    """

    def __init__(
        self, make: Make, received: SentWeights, weights: RayWeights, passed_on: tuple[type[Exception], ...]
    ) -> None:
        self._made_of, self._weights, self._passed_on = (make, received), weights, passed_on
        self._class: Any = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(Actor)
        self._lines: dict[int, _Line] = {}
        self._calls: dict[Ref, int] = {}  # pending calls, and the worker of each

    def start(self, worker: int, life: int) -> None:
        """Start the actor of a worker; Ray waits for a free CPU."""
        actor = self._class.remote(self._made_of, worker, life, self._passed_on)
        self._lines[worker] = _Line(actor, life)
        self._calls[actor.begin.remote()] = worker

    def ask(self, worker: int, question: Question) -> None:
        """Send a question; if the actor is gone, ``wait`` reports it."""
        actor = self._lines[worker].actor
        if question.name == "collect":
            self._weights.loading[actor.load.remote(self._weights.ref, question.version)] = question.version
        self._calls[actor.answer.remote(question.number, question.name, question.arguments)] = worker

    def wait(self, timeout: float) -> Sequence[Event]:
        """Return the events that have arrived, after at most ``timeout`` seconds."""
        if not self._calls:
            return []
        ready, _ = ray.wait(list(self._calls), num_returns=1, timeout=timeout, fetch_local=False)
        if ready:
            ready, _ = ray.wait(list(self._calls), num_returns=len(self._calls), timeout=0.0, fetch_local=False)
        return [self._read(call, self._calls.pop(call)) for call in ready]

    def _read(self, call: Ref, worker: int) -> Event:
        line, name = self._lines[worker], collector_name(worker)
        try:
            message = ray.get(call, timeout=GET_TIMEOUT)
        except Exception as failure:  # noqa: BLE001 - Ray has many, and a message may not be readable
            lines = str(failure).strip().splitlines() or [""]
            return Lost(worker, line.life, WorkerError(f"{name} died ({type(failure).__name__}: {lines[0]})"))
        match message:
            case ("ready", int(pid), node):
                line.pid = pid if node == ray.get_runtime_context().get_node_id() else None
                return Ready(worker, line.life)
            case ("answer", int(number), content):
                return Answer(worker, line.life, number, content)
            case ("error", Exception() as error):
                return Lost(worker, line.life, error)
        return Lost(worker, line.life, WorkerError(f"{name} sent something else than an answer: {message!r:.100}"))

    def kill(self, worker: int) -> None:
        """End the actor of a worker at once."""
        line = self._lines.pop(worker)
        self._calls = {call: other for call, other in self._calls.items() if other != worker}
        with contextlib.suppress(Exception):  # the actor or its node is gone
            ray.kill(line.actor, no_restart=True)

    def close(self, patience: float) -> None:
        """End all actors.

        Args:
            patience: seconds that workers get to close their environments; 0 ends them at once.
        """
        if patience:
            closing = [line.actor.close.remote() for line in self._lines.values()]
            ray.wait(closing, num_returns=len(closing), timeout=patience) if closing else None
        for worker in list(self._lines):
            self.kill(worker)
