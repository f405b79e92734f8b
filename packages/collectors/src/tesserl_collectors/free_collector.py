"""Collectors that run freely: workers collect chunks at their own speed, while the learner learns."""

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from tesserl_collectors.batches import batch_of
from tesserl_collectors.collector import Episode
from tesserl_collectors.interfaces import WorkerRecord
from tesserl_collectors.process_collector import Observe
from tesserl_collectors.supervisor import Supervisor
from tesserl_collectors.transport import Received
from tesserl_collectors.weights import Weights
from tesserl_storage.fields import Fields

VERSIONS_BETWEEN = 8
"""Weights are published when they are older than this part of ``max_lag``."""

LOOK = 5.0
"""Seconds after which workers that have become ready are asked, if nothing else arrives."""


class FreeCollector:
    """Hands out one chunk of one worker at a time, in the order in which chunks arrive.

    Which chunks these are depends on the speed of the processes: a run is no function of its seed. It keeps count
    instead. Every chunk that arrives is handed out once, or refused because its weights are too old. A worker begins
    its next chunk when its last one is handed out. Workers are not asked while the updates that the chunks of the
    others pay for would make their chunk too old; so neither side runs ahead.

    Args:
        supervisor: asks the workers; drops the questions of those that are lost.
        weights: published to the workers.
        network: of the learner; its state dict is what the workers act with.
        num_envs: environments of all workers together.
        max_lag: updates by which the weights of a chunk may be older than the learner's.
        updates_of: return the updates that a number of environment steps pays for.
        observe: called with each chunk before it is handed out; None if nothing is to be updated.
    """

    exact = False

    def __init__(
        self,
        supervisor: Supervisor,
        weights: Weights,
        network: nn.Module,
        num_envs: int,
        *,
        max_lag: int,
        updates_of: Callable[[int], float],
        observe: Observe | None = None,
    ) -> None:
        self._supervisor, self._weights, self._network = supervisor, weights, network
        self._envs = num_envs // supervisor.num_workers
        self.max_lag, self._updates_of, self._observe = max_lag, updates_of, observe
        self.events = supervisor.events
        self.version, self._step = 0, 0
        self._published: int | None = None
        self._ready: deque[Received] = deque()  # arrived, not handed out
        self._episodes: list[Episode] = []
        self._asked = [0] * supervisor.num_workers  # number of the last question
        self._lives = [-1] * supervisor.num_workers  # in which the last chunk was made
        self.source: tuple[int, bool] = 0, False
        """Worker of the last chunk, and whether the chunk follows the last one of that worker that was handed out."""

        self.refused_steps = self.learner_waits = self.collectors_wait = 0
        self._lags: list[int] = []  # of the chunks since the last report

    @property
    def record(self) -> WorkerRecord:
        """The record of the workers."""
        return self

    def set_weights(self, version: int, step: int) -> None:
        """Ask with the present weights from now on, see `Collecting`; they are published when they are old enough."""
        self.version, self._step = version, step
        self._supervisor.step = step

    def collect(self, num_steps: int) -> TensorDictBase:
        """Return the next chunk; wait for one if none has arrived.

        Args:
            num_steps: T, steps of every environment in a chunk.

        Returns:
            ``[N, T]``: the entries of one worker's batch, see `Collector.collect`; N is the number of its environments.

        Raises:
            WorkerError: a worker was lost and no restart is left.
            Exception: an error of a worker that another one would raise too.
        """
        updates = max(math.ceil(self._updates_of(num_steps * self._envs)), 1)
        self._ready += self._supervisor.receive(0.0)
        if not self._ready:
            self.learner_waits += 1
        received = None
        while received is None:
            self._ask(num_steps, 1 + self.max_lag // updates)
            while not self._ready:
                self._ready += self._supervisor.receive(LOOK)
                self._ask(num_steps, 1 + self.max_lag // updates)
            received = self._accepted(self._ready.popleft())
        content = received.content
        batch = batch_of({name: torch.from_numpy(array.copy()) for name, array in content["arrays"].items()})
        self._episodes += [Episode(*pair) for pair in content["episodes"]]
        if self._observe is not None:
            self._observe(batch)
        self._ask(num_steps, self.max_lag // updates)  # they collect while the learner learns
        self.collectors_wait += bool(self._supervisor.idle)
        return batch

    def _accepted(self, received: Received) -> Received | None:
        """Return a chunk; None if its weights are too old."""
        worker, life = received.worker, received.life
        lag = self.version - received.question.version
        if lag > self.max_lag:
            self.refused_steps += received.question.steps
            self._lives[worker] = -1  # the next chunk does not follow the last one that was handed out
            return None
        self._lags.append(lag)
        self.source = worker, life == self._lives[worker]
        self._lives[worker] = life
        return received

    def _ask(self, num_steps: int, most: int) -> None:
        """Ask the workers that have waited longest, until ``most`` chunks are being made or wait."""
        waiting = {received.worker for received in self._ready}
        free = sorted((self._asked[worker], worker) for worker in self._supervisor.idle if worker not in waiting)
        room = most - len(self._ready) - len(self._supervisor.open_versions)
        if room <= 0 or not free:
            return
        self._publish()
        arguments = {"num_steps": num_steps, "version": self._published, "step": self._step, "generators": None}
        for _, worker in free[:room]:
            self._asked[worker] = 1 + max(self._asked)
            steps, version = num_steps * self._envs, self._published or 0
            self._supervisor.ask(worker, "collect", dict(arguments), steps=steps, version=version)

    def _publish(self) -> None:
        """Publish the weights if those of the last time are old, and no worker still reads those before them."""
        if self._published is not None:
            is_old = self.version - self._published >= max(self.max_lag // VERSIONS_BETWEEN, 1)
            if not is_old or not self._weights.has_room(self._supervisor.open_versions.values()):
                return
        self._weights.publish(self._network.state_dict(), self.version)
        self._published = self.version

    def pop_episodes(self) -> list[Episode]:
        """Return the episodes that ended in the chunks handed out since the last call."""
        episodes, self._episodes = self._episodes, []
        return episodes

    def metrics(self) -> dict[str, float]:
        """Return counts since the start of the run, and the lag of the chunks since the last call."""
        lags, self._lags = self._lags, []
        measured = {"lag/mean": sum(lags) / len(lags), "lag/max": max(lags)} if lags else {}
        return {
            **self._supervisor.metrics(),
            "workers/refused_steps": self.refused_steps,
            **measured,
            "limiter/learner_waits": self.learner_waits,
            "limiter/collectors_wait": self.collectors_wait,
        }

    def snapshot(self) -> dict[str, Any]:
        """Return the entry of a checkpoint: counts and episodes. Chunks on their way are no part of it."""
        counts = {name: getattr(self, name) for name in ("refused_steps", "learner_waits", "collectors_wait")}
        episodes = [[episode.episode_return, episode.length] for episode in self._episodes]
        return {"collector": {"supervisor": self._supervisor.state_dict(), "episodes": episodes, **counts}}

    def restore(self, saved: Mapping[str, Any]) -> bool:
        """Continue the counts of a checkpoint with new lives of all workers, which have random streams of their own.

        Args:
            saved: mapping with the entry of ``snapshot``.

        Returns:
            True: it never promises more.
        """
        fields = Fields(saved, "state").fields("collector")
        self._supervisor.load_state_dict(fields.take("supervisor"), anew=True)
        self._episodes = [Episode(*pair) for pair in fields.pairs("episodes")]
        self.refused_steps, self.learner_waits = fields.integer("refused_steps"), fields.integer("learner_waits")
        self.collectors_wait = fields.integer("collectors_wait")
        return True


class Window(Protocol):
    """Makes transitions of several steps of batches that follow each other, as `tesserl_replay.NStepWindow` does."""

    def extend(self, batch: TensorDictBase) -> TensorDictBase:
        """Add a batch ``[N, T]``; return the transitions that are complete."""

    def clear(self) -> None:
        """Forget the steps that wait."""


class WorkerWindows:
    """One n-step window for each worker, so that no transition crosses a worker's life or a refused chunk.

    Args:
        make: makes a window.
        collector: knows the worker of each chunk.
    """

    def __init__(self, make: Callable[[], Window], collector: FreeCollector) -> None:
        self._make, self._collector = make, collector
        self._windows: dict[int, Window] = {}

    def extend(self, batch: TensorDictBase) -> TensorDictBase:
        """Add the chunk that was handed out last, and return the transitions that are complete."""
        worker, continues = self._collector.source
        window = self._windows.setdefault(worker, self._make())
        if not continues:
            window.clear()
        return window.extend(batch)

    def clear(self) -> None:
        """Forget the steps that wait."""
        self._windows.clear()

    def state_dict(self) -> dict[str, Tensor]:
        """Return nothing: workers begin anew after a resume."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:  # noqa: ARG002 - as above
        """Forget the steps that wait."""
        self.clear()
