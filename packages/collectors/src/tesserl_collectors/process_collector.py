"""Collectors whose environments are in worker processes, which collect while the learner learns if the delay is 1."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tensordict import TensorDictBase
from torch import Tensor

from tesserl_collectors.batches import batch_of, tensor_of, trajectories_of
from tesserl_collectors.collector import Episode
from tesserl_collectors.transport import Question
from tesserl_collectors.workers import Answers, Workers
from tesserl_storage.fields import Fields

Observe = Callable[[TensorDictBase], None]
"""Updates the learner's running statistics with a batch ``[N, T]``."""


class _Episodes:
    """The training episodes that ended and were not reported yet."""

    def __init__(self) -> None:
        self.episodes: list[Episode] = []

    def add(self, answers: Answers) -> None:
        """Add the episodes of a round, those of the first worker first."""
        self.episodes += [Episode(*pair) for answer in answers for pair in answer["episodes"]]

    def pop(self) -> list[Episode]:
        """Return the episodes that were added since the last call."""
        episodes, self.episodes = self.episodes, []
        return episodes

    def plain(self) -> list[list[float]]:
        """Return the episodes for a checkpoint."""
        return [[episode.episode_return, episode.length] for episode in self.episodes]


class ProcessCollector:
    """Collects batches with worker processes, each of which owns a part of the environments.

    With delay 0 a batch is made when it is asked for, with the present weights. With delay 1 the next batch is begun
    whenever one is handed out, with the weights of that moment: those from before learning on it. Results depend on the
    seed and the number of workers, never on the speed of a process.

    Args:
        workers: that collect.
        num_envs: environments of all workers together.
        observe: called with each batch before it is handed out; None if nothing is to be updated.
    """

    def __init__(self, workers: Workers, num_envs: int, observe: Observe | None = None) -> None:
        self.workers, self.num_envs, self._observe = workers, num_envs, observe
        self.set_weights, self.record = workers.set_weights, workers.record
        self._episodes = _Episodes()
        self.pop_episodes = self._episodes.pop

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
        if self.workers.is_idle:
            self._ask(num_steps)
        answers = self.workers.receive()
        self._episodes.add(answers)
        names = answers[0]["arrays"]
        parts = {name: [tensor_of(answer["arrays"][name]) for answer in answers] for name in names}
        batch = batch_of({name: torch.cat(tensors, dim=1) for name, tensors in parts.items()})
        if self._observe is not None:
            self._observe(batch)
        if self.workers.delay:
            self._ask(num_steps)
        return batch

    def _ask(self, num_steps: int) -> None:
        steps = num_steps * self.num_envs // self.workers.number
        self.workers.ask([{"num_steps": num_steps}] * self.workers.number, steps)

    def snapshot(self) -> dict[str, Any]:
        """Return the entry of a checkpoint from which collecting continues; wait for the batch that is being made."""
        return {"collector": {**self.workers.state_dict(), "episodes": self._episodes.plain()}}

    def restore(self, saved: Mapping[str, Any]) -> bool:
        """Continue from a checkpoint, see `Workers.load_state_dict`; return whether every environment is where it was.

        Args:
            saved: mapping with the entry of ``snapshot``.
        """
        fields = Fields(saved, "state").fields("collector")
        self._episodes.episodes = [Episode(*pair) for pair in fields.pairs("episodes")]
        return self.workers.load_state_dict(fields.value)


class ProcessGroupCollector:
    """Plays groups of trajectories with worker processes; every group is played by one of them.

    Starts are numbered over the whole run, so they do not depend on the number of workers. With delay 1 the next groups
    are begun whenever some are handed out, see `ProcessCollector`.

    Args:
        workers: that play.
        keys: observation keys.
    """

    def __init__(self, workers: Workers, keys: Sequence[str]) -> None:
        self.workers, self.keys = workers, list(keys)
        self.next_group = 0
        self.set_weights, self.record = workers.set_weights, workers.record
        self._episodes = _Episodes()
        self.pop_episodes = self._episodes.pop

    def collect(self, num_groups: int) -> tuple[list[TensorDictBase], Tensor]:
        """Return the trajectories of the next groups, see `GroupCollector.collect`.

        Args:
            num_groups: at least 1; with delay 1 the same in every call.
        """
        if self.workers.is_idle:
            self._ask(num_groups)
        answers = self.workers.receive()
        self._episodes.add(answers)
        found = [pair for answer in answers for pair in trajectories_of(answer["arrays"])]
        if self.workers.delay:
            self._ask(num_groups)
        return [trajectory for trajectory, _ in found], torch.tensor([group for _, group in found])

    def _ask(self, num_groups: int) -> None:
        parts = np.array_split(np.arange(self.next_group, self.next_group + num_groups), self.workers.number)
        firsts = self.next_group + np.cumsum([0, *map(len, parts)])
        self.workers.ask(
            [{"num_groups": len(part), "first": int(first)} for part, first in zip(parts, firsts, strict=False)]
        )
        self.next_group += num_groups

    def state_dict(self) -> dict[str, Any]:
        """Return the number of groups that were begun, and the states of the workers."""
        return {**self.workers.state_dict(), "next_group": self.next_group, "episodes": self._episodes.plain()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        fields = Fields(state, "collector")
        self.next_group = fields.integer("next_group")
        self._episodes.episodes = [Episode(*pair) for pair in fields.pairs("episodes")]
        self.workers.load_state_dict(state)


def check_answer(num_envs: int) -> Callable[[Question, Any], str | None]:
    """Return the function that says what is wrong with an answer.

    Args:
        num_envs: environments of each worker.
    """

    def check(question: Question, content: Any) -> str | None:
        if question.name != "collect":
            return None
        arrays = content.get("arrays") if isinstance(content, dict) else None
        if not isinstance(arrays, dict) or "episodes" not in content:
            return "answered with something else than a round"
        if "num_steps" not in question.arguments:
            return None
        wanted = (question.arguments["num_steps"], num_envs)
        wrong = {name: array.shape for name, array in arrays.items() if array.shape[:2] != wanted}
        return f"answered with a batch of another size: expected {wanted}, got {wrong}" if wrong else None

    return check
