"""Collects with worker processes, while the learner learns if the delay is 1."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from tesserl_environments.snapshots import MOST_SECONDS
from tesserl_trainer.checkpoints.fields import Fields
from tesserl_trainer.checkpoints.sealed_json import CheckpointError
from tesserl_trainer.checkpoints.state import generators_state, join_state, set_generators_state, split_state
from tesserl_trainer.collecting.collector import Episode
from tesserl_trainer.distributed.shared_memory import SharedWeights
from tesserl_trainer.distributed.supervisor import Question, Supervisor

Observe = Callable[[TensorDictBase], None]
"""Updates the learner's running statistics with a batch ``[N, T]``."""


class ProcessCollector:
    """Collects batches with worker processes, each of which owns a part of the environments.

    With delay 0 a batch is made when it is asked for, with the present weights. With delay 1 the batch after next is
    begun whenever a batch is handed out, with the weights of that moment: those from before learning on it. Results
    depend on the seed and the number of workers, never on the speed of a process.

    Args:
        supervisor: asks the workers.
        weights: shared with the workers.
        network: of the learner; its state dict is what the workers act with.
        num_envs: environments of all workers together.
        delay: 0 or 1.
        observe: called with each batch before it is handed out; None if nothing is to be updated.
        lends_generators: whether the worker acts with this process's random generators, as a collector in this process
            would; for one worker and delay 0.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        weights: SharedWeights,
        network: nn.Module,
        num_envs: int,
        *,
        delay: int,
        observe: Observe | None = None,
        lends_generators: bool = False,
    ) -> None:
        self.num_envs, self.version, self.episodes = num_envs, 0, list[Episode]()
        self._supervisor, self._weights, self._network = supervisor, weights, network
        self._delay, self._observe, self._lends = delay, observe, lends_generators
        self._step = 0
        self._is_asked = False
        self._waiting: tuple[TensorDictBase, list[Episode]] | None = None  # made already, not handed out

    def set_weights(self, version: int, step: int) -> None:
        """Collect with the present weights of the network from the next question on.

        Args:
            version: number of updates behind them.
            step: environment steps of the run so far; the workers' schedules are those of this step.
        """
        self.version, self._step = version, step

    def collect(self, num_steps: int) -> TensorDictBase:
        """Return the next batch, see `Collector.collect`; with delay 1 the workers then begin the one after it.

        Args:
            num_steps: T, steps of every environment.

        Returns:
            ``[N, T]``: the entries of the workers' batches, in the order of the workers.

        Raises:
            WorkerError: a worker raised an error, died or made no step in time.
            TaskError: an environment raised an error, or returned something that its spaces do not allow.
        """
        if self._waiting is None and not self._is_asked:
            self._ask(num_steps)
        batch, episodes = self._waiting or self._receive()
        self._waiting = None
        self.episodes += episodes
        if self._observe is not None:
            self._observe(batch)
        if self._delay:
            self._ask(num_steps)
        return batch

    def pop_episodes(self) -> list[Episode]:
        """Return the episodes that ended since the last call: those of the first worker first."""
        episodes, self.episodes = self.episodes, []
        return episodes

    def _ask(self, num_steps: int) -> None:
        self._weights.publish(self._network.state_dict(), self.version)
        arguments: dict[str, Any] = {"num_steps": num_steps, "version": self.version, "step": self._step}
        arguments["generators"] = plain(generators_state(cuda=False)) if self._lends else None
        steps = num_steps * self.num_envs // self._supervisor.num_workers
        for worker in range(self._supervisor.num_workers):
            self._supervisor.ask(worker, "collect", arguments, steps=steps, version=self.version)
        self._is_asked = True

    def _receive(self) -> tuple[TensorDictBase, list[Episode]]:
        """Wait for the batches of all workers; return them as one, copied, and the episodes that ended."""
        answers = self._supervisor.answers()
        self._is_asked = False
        if self._lends:
            set_generators_state(state_of(answers[0]["generators"]))
        parts = {key: [torch.from_numpy(answer["arrays"][key]) for answer in answers] for key in answers[0]["arrays"]}
        episodes = [Episode(*pair) for answer in answers for pair in answer["episodes"]]
        return batch_of({key: torch.cat(tensors, dim=1) for key, tensors in parts.items()}), episodes

    def _ask_all(self, name: str, arguments: Sequence[dict[str, Any]], timeout: float | None = None) -> list[Any]:
        for worker, each in enumerate(arguments):
            self._supervisor.ask(worker, name, each, version=self.version, timeout=timeout)
        return self._supervisor.answers()

    def snapshot(self) -> dict[str, Any]:
        """Return the entry of a checkpoint from which collecting continues; wait for the batch that is being made."""
        if self._is_asked:
            self._waiting = self._receive()
        batch, episodes = self._waiting or (None, [])
        workers = self._ask_all("snapshot", [{}] * self._supervisor.num_workers)
        return {
            "collector": {
                "version": self.version,
                "episodes": [[episode.episode_return, episode.length] for episode in self.episodes],
                "workers": [state_of(worker) for worker in workers],
                "waiting": {} if batch is None else entries_of(batch),
                "waiting_episodes": [[episode.episode_return, episode.length] for episode in episodes],
            }
        }

    def restore(self, saved: Mapping[str, Any]) -> bool:
        """Continue from a checkpoint; reset all environments if one cannot be put back to where it was.

        The batch that was made already is dropped then, as what follows would not continue it.

        Args:
            saved: mapping with the entry of ``snapshot``.

        Returns:
            Whether every environment is where it was.

        Raises:
            CheckpointError: the state is of another number of workers.
        """
        fields = Fields(saved, "state").fields("collector")
        workers, number = fields.items("workers"), self._supervisor.num_workers
        if len(workers) != number:
            raise CheckpointError(f"collector.workers: expected the states of {number} workers, got {len(workers)}")
        self.version = fields.integer("version")
        self.episodes = [Episode(*pair) for pair in fields.pairs("episodes")]
        arguments = [{"saved": plain(worker)} for worker in workers]
        restored = all(self._ask_all("restore", arguments, self._replay_timeout(workers)))
        if not restored:
            self._ask_all("restart", [{}] * number)
            return False
        waiting = fields.fields("waiting").value
        if waiting:
            episodes = [Episode(*pair) for pair in fields.pairs("waiting_episodes")]
            self._waiting = batch_of(waiting), episodes
        return True

    def _replay_timeout(self, workers: Sequence[Mapping[str, Any]]) -> float:
        """Return the seconds in which a worker plays its longest episode again."""
        snapshots = [snapshot for worker in workers for snapshot in worker["environments"] or ()]
        longest = max((len(snapshot["actions"] or ()) for snapshot in snapshots), default=0)
        return min(self._supervisor.worker_timeout * (longest + 1), MOST_SECONDS)


def check_answer(num_envs: int) -> Callable[[Question, Any], str | None]:
    """Return the function that says what is wrong with an answer.

    Args:
        num_envs: environments of each worker.
    """

    def check(question: Question, content: Any) -> str | None:
        if question.name != "collect":
            return None
        wanted = (question.arguments["num_steps"], num_envs)
        arrays = content.get("arrays") if isinstance(content, dict) else None
        if not isinstance(arrays, dict) or "action" not in arrays:
            return "answered with something else than a batch"
        wrong = {key: array.shape for key, array in arrays.items() if array.shape[:2] != wanted}
        return f"answered with a batch of another size: expected {wanted}, got {wrong}" if wrong else None

    return check


def plain(state: Any) -> dict[str, Any]:
    """Return a state as JSON data and arrays, which cross a pipe without the shared files of torch."""
    document, tensors = split_state(state)
    return {"document": document, "arrays": {name: tensor.cpu().numpy() for name, tensor in tensors.items()}}


def state_of(sent: Mapping[str, Any]) -> Any:
    """Return the state of which ``plain`` was sent, with memory of its own."""
    tensors = {name: torch.from_numpy(array.copy()) for name, array in sent["arrays"].items()}
    return join_state(sent["document"], tensors)


def entries_of(batch: TensorDictBase) -> dict[str, Tensor]:
    """Return the entries of a batch ``[N, T]``, time first, as they lie in memory: ``[T, N, ...]``.

    Args:
        batch: the parts of its nested keys are joined by ``/``.
    """
    leaves = batch.items(include_nested=True, leaves_only=True)
    return {"/".join(key) if isinstance(key, tuple) else key: tensor.transpose(0, 1) for key, tensor in leaves}


def batch_of(entries: Mapping[str, Tensor]) -> TensorDictBase:
    """Return the batch ``[N, T]`` of entries ``[T, N, ...]``, which lies in memory like that of a `Collector`."""
    batch = {tuple(key.split("/")): tensor.transpose(0, 1) for key, tensor in entries.items()}
    return TensorDict(batch, next(iter(batch.values())).shape[:2])
