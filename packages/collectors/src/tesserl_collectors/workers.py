"""Ask all workers for one round after the other, and save their states in checkpoints."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tesserl_collectors.interfaces import WorkerRecord
from tesserl_collectors.supervisor import Supervisor
from tesserl_collectors.weights import Weights
from tesserl_environments.snapshots import MOST_SECONDS
from tesserl_storage.errors import StorageError
from tesserl_storage.fields import Fields
from tesserl_storage.generators import generators_state, set_generators_state
from tesserl_storage.state import join_state, split_state

Answers = Sequence[Mapping[str, Any]]
"""One answer per worker: ``arrays`` by name, and finished ``episodes`` as pairs of return and length."""


class Workers:
    """All workers of a run, their weights, and the round in progress.

    Args:
        supervisor: supervises the workers.
        weights: published to the workers.
        network: of the learner; its state dict is what the workers act with.
        delay: 0, or 1 to collect each round while the learner learns from the previous one.
        lends_generators: whether the worker uses the state of this process's random generators, so that it gives the
            results of a collector in this process; only for one worker and delay 0.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        weights: Weights,
        network: nn.Module,
        *,
        delay: int,
        lends_generators: bool = False,
    ) -> None:
        self.number, self.delay, self.version = supervisor.num_workers, delay, 0
        self._supervisor, self._weights, self._network = supervisor, weights, network
        self._lends, self._step = lends_generators, 0
        self._is_asked = False
        self._waiting: Answers | None = None  # collected, but not returned yet

    def set_weights(self, version: int, step: int) -> None:
        """Use the current weights of the network from the next question on.

        Args:
            version: number of updates behind them.
            step: environment steps of the run so far; it sets the workers' schedules.
        """
        self.version, self._step = version, step
        self._supervisor.step = step

    @property
    def record(self) -> WorkerRecord | None:
        """The record of replaced workers; None if workers are never replaced."""
        return self._supervisor if self._supervisor.max_restarts else None

    @property
    def is_idle(self) -> bool:
        """Return whether no round is in progress or waiting."""
        return self._waiting is None and not self._is_asked

    def ask(self, arguments: Sequence[Mapping[str, Any]], steps: int = 0) -> None:
        """Publish the weights and ask for a round.

        Args:
            arguments: arguments for each worker.
            steps: environment steps of each worker, if known.
        """
        self._weights.publish(self._network.state_dict(), self.version)
        generators = plain(generators_state(cuda=False)) if self._lends else None
        common = {"version": self.version, "step": self._step, "generators": generators}
        for worker, each in enumerate(arguments):
            arguments_of = {**each, **common}
            self._supervisor.ask(worker, "collect", arguments_of, steps=steps, version=self.version)
        self._is_asked = True

    def receive(self) -> Answers:
        """Wait for the round in progress and return it; its arrays are valid until the next question.

        Raises:
            WorkerError: a worker raised an error, died or made no step in time.
            TaskError: an environment raised an error, or returned a value outside of its spaces.
        """
        if self._waiting is not None:
            answers, self._waiting = self._waiting, None
            return answers
        answers = self._supervisor.answers()
        self._is_asked = False
        if self._lends:
            set_generators_state(state_of(answers[0]["generators"]))
        return answers

    def ask_all(
        self, name: str, arguments: Sequence[dict[str, Any]] | None = None, timeout: float | None = None
    ) -> list[Any]:
        """Ask every worker a question other than a round, and wait for the answers.

        Args:
            name: name of the question.
            arguments: arguments for each worker; None for no arguments.
            timeout: see `Supervisor.ask`.
        """
        for worker in range(self.number):
            each = {} if arguments is None else arguments[worker]
            self._supervisor.ask(worker, name, each, version=self.version, timeout=timeout)
        return self._supervisor.answers()

    def finish_round(self) -> None:
        """Wait for the round in progress, if any, and keep it for ``receive``."""
        if self._is_asked:
            self._waiting = [
                {"arrays": _copied(answer["arrays"]), "episodes": answer["episodes"]} for answer in self.receive()
            ]

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all workers and the waiting round; wait for a round in progress."""
        self.finish_round()
        waiting = [
            {"arrays": _tensors(answer["arrays"]), "episodes": answer["episodes"]} for answer in self._waiting or ()
        ]
        workers = [state_of(answer) for answer in self.ask_all("snapshot")]
        replaced = {"supervisor": self._supervisor.state_dict()} if self._supervisor.max_restarts else {}
        return {"version": self.version, "workers": workers, "waiting": waiting, **replaced}

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Continue from ``state_dict``; reset all environments if one cannot be restored.

        In this case the waiting round is dropped, because later rounds would not continue it.

        Args:
            state: mapping with the entries of ``state_dict``.

        Returns:
            Whether all environments are in their saved states.

        Raises:
            StorageError: the state has another number of workers.
        """
        fields = Fields(state, "collector")
        workers, waiting = fields.items("workers"), fields.items("waiting")
        if len(workers) != self.number or len(waiting) not in (0, self.number):
            raise StorageError(
                f"collector.workers: expected the states of {self.number} workers, got {len(workers)}, and "
                f"{len(waiting)} parts of a round"
            )
        if self._supervisor.max_restarts:
            self._supervisor.load_state_dict(fields.take("supervisor"), anew=False)
        self.version = fields.integer("version")
        arguments = [{"saved": plain(worker)} for worker in workers]
        if not all(self.ask_all("restore", arguments, self._replay_timeout(workers))):
            self.ask_all("restart")
            return False
        if waiting:
            self._waiting = [
                {
                    "arrays": {name: tensor.numpy() for name, tensor in answer["arrays"].items()},
                    "episodes": Fields(answer, "collector.waiting").pairs("episodes"),
                }
                for answer in waiting
            ]
        return True

    def _replay_timeout(self, workers: Sequence[Mapping[str, Any]]) -> float:
        """Return the timeout for a worker to replay its longest episode, in seconds."""
        snapshots = [snapshot for worker in workers for snapshot in worker.get("environments") or ()]
        longest = max((len(snapshot["actions"] or ()) for snapshot in snapshots), default=0)
        return min(self._supervisor.worker_timeout * (longest + 1), MOST_SECONDS)


def plain(state: Any) -> dict[str, Any]:
    """Return a state as JSON data and arrays, which can be sent through a pipe without torch's shared files."""
    document, tensors = split_state(state)
    return {"document": document, "arrays": {name: tensor.cpu().numpy() for name, tensor in tensors.items()}}


def state_of(sent: Mapping[str, Any]) -> Any:
    """Invert ``plain``: return a copy of the state."""
    return join_state(sent["document"], _tensors(_copied(sent["arrays"])))


def _copied(arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {name: array.copy() for name, array in arrays.items()}


def _tensors(arrays: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
