"""Collectors with environments in worker processes; with delay 1 the workers collect while the learner learns."""

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
    """Finished training episodes that were not reported yet."""

    def __init__(self) -> None:
        self.episodes: list[Episode] = []

    def add(self, answers: Answers) -> None:
        """Add the episodes of a round, in the order of the workers."""
        self.episodes += [Episode(*pair) for answer in answers for pair in answer["episodes"]]

    def pop(self) -> list[Episode]:
        """Return the episodes that were added since the last call."""
        episodes, self.episodes = self.episodes, []
        return episodes

    def plain(self) -> list[list[float]]:
        """Return the episodes for a checkpoint."""
        return [[episode.episode_return, episode.length] for episode in self.episodes]


class ProcessCollector:
    """Collect batches with worker processes; each worker owns a part of the environments.

    With delay 0, ``collect`` starts a batch with the current weights and waits for it. With delay 1, ``collect``
    returns the waiting batch and starts the next one, with the weights from before learning on the returned batch.
    Results depend on the seed and the number of workers, never on the speed of a process.

    Args:
        workers: workers that collect.
        num_envs: total number of environments of all workers.
        observe: called with each batch before it is returned; None for no call.
    """

    def __init__(self, workers: Workers, num_envs: int, observe: Observe | None = None) -> None:
        self.workers, self.num_envs, self._observe = workers, num_envs, observe
        self.set_weights, self.record = workers.set_weights, workers.record
        self._episodes = _Episodes()
        self.pop_episodes = self._episodes.pop

    def collect(self, num_steps: int) -> TensorDictBase:
        """Return the next batch, see `Collector.collect`; with delay 1 the workers then begin another one.

        Args:
            num_steps: steps ``T`` of every environment.

        Returns:
            ``[N, T]``: the entries of the workers' batches, in the order of the workers.

        Raises:
            WorkerError: a worker raised an error, died or made no step in time.
            TaskError: an environment raised an error, or returned a value outside of its spaces.
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
        """Return the entry for a checkpoint; wait for the batch in progress."""
        return {"collector": {**self.workers.state_dict(), "episodes": self._episodes.plain()}}

    def restore(self, saved: Mapping[str, Any]) -> bool:
        """Continue from a checkpoint; return whether all environments are in their saved states.

        Args:
            saved: mapping with the entry of ``snapshot``.
        """
        fields = Fields(saved, "state").fields("collector")
        self._episodes.episodes = [Episode(*pair) for pair in fields.pairs("episodes")]
        return self.workers.load_state_dict(fields.value)


class ProcessGroupCollector:
    """Play groups of trajectories with worker processes; one worker plays all trajectories of a group.

    Starts are numbered over the whole run, so they do not depend on the number of workers. With delay 1, ``collect``
    also begins the next groups, see `ProcessCollector`.

    Args:
        workers: workers that play.
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
            num_groups: number of groups, at least 1; with delay 1 the same in every call.
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
        """Return the number of groups begun so far, and the states of the workers."""
        return {**self.workers.state_dict(), "next_group": self.next_group, "episodes": self._episodes.plain()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        fields = Fields(state, "collector")
        self.next_group = fields.integer("next_group")
        self._episodes.episodes = [Episode(*pair) for pair in fields.pairs("episodes")]
        self.workers.load_state_dict(state)


def check_answer(num_envs: int) -> Callable[[Question, Any], str | None]:
    """Return a function that describes an invalid answer, or returns None for a valid one.

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
