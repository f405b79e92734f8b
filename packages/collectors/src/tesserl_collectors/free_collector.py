"""Asynchronous collection: workers collect chunks at their own speed while the learner learns."""

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
"""Weights are published again when they are older than ``max_lag`` divided by this number."""

LOOK = 5.0
"""Seconds between two checks for workers that have become ready, if no answer arrives."""


class FreeCollector:
    """Return one chunk of one worker per call, in the order of arrival.

    The order depends on the speed of the processes, so a run is not reproducible from its seed. Every chunk that
    arrives is either returned once, or rejected because its weights are too old; metrics count both. A worker begins
    its next chunk when its last chunk has been returned. A worker must wait if its chunk would be too old after the
    updates for the chunks of the others. So neither the workers nor the learner can run far ahead.

    Args:
        supervisor: supervises the workers; it must drop the questions of lost workers.
        weights: publishes the weights to the workers.
        network: network of the learner; the workers act with its state dict.
        num_envs: total number of environments of all workers.
        max_lag: largest number of updates by which the weights of a chunk may be older than the learner's.
        updates_of: returns the number of updates for a number of environment steps.
        observe: called with each chunk before it is returned; None for no call.
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
        self._ready: deque[Received] = deque()  # received chunks that were not returned yet
        self._episodes: list[Episode] = []
        self._asked = [0] * supervisor.num_workers  # number of the last question
        self._lives = [-1] * supervisor.num_workers  # life of each worker that made its last returned chunk
        self.source: tuple[int, bool] = 0, False
        """Worker of the last chunk, and whether the chunk continues the last returned chunk of this worker."""

        self.refused_steps = self.learner_waits = self.collectors_wait = 0
        self._lags: list[int] = []  # lags of the chunks since the last report

    @property
    def record(self) -> WorkerRecord:
        """The record of the workers."""
        return self

    def set_weights(self, version: int, step: int) -> None:
        """Use the current weights for later questions, see `Collecting`; they are not published every time."""
        self.version, self._step = version, step
        self._supervisor.step = step

    def collect(self, num_steps: int) -> TensorDictBase:
        """Return the next chunk; wait for one if none has arrived.

        Args:
            num_steps: steps ``T`` of every environment in a chunk.

        Returns:
            ``[N, T]``: the entries of one worker's batch, see `Collector.collect`; ``N`` is its number of environments.

        Raises:
            WorkerError: a worker was lost and no restart is left.
            Exception: an error of a worker that every other worker would raise too.
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
        self._ask(num_steps, self.max_lag // updates)  # workers collect while the learner learns
        self.collectors_wait += bool(self._supervisor.idle)
        return batch

    def _accepted(self, received: Received) -> Received | None:
        """Return the chunk, or None if its weights are too old."""
        worker, life = received.worker, received.life
        lag = self.version - received.question.version
        if lag > self.max_lag:
            self.refused_steps += received.question.steps
            self._lives[worker] = -1  # the next chunk does not continue the last returned one
            return None
        self._lags.append(lag)
        self.source = worker, life == self._lives[worker]
        self._lives[worker] = life
        return received

    def _ask(self, num_steps: int, most: int) -> None:
        """Ask workers, those that have waited longest first, until ``most`` chunks are in progress or waiting."""
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
        """Publish the weights if the published ones are old and no worker still reads the version before these."""
        if self._published is not None:
            is_old = self.version - self._published >= max(self.max_lag // VERSIONS_BETWEEN, 1)
            if not is_old or not self._weights.has_room(self._supervisor.open_versions.values()):
                return
        self._weights.publish(self._network.state_dict(), self.version)
        self._published = self.version

    def pop_episodes(self) -> list[Episode]:
        """Return the episodes that ended in the chunks returned since the last call."""
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
        """Return the entry for a checkpoint: counts and episodes. Chunks in progress are not saved."""
        counts = {name: getattr(self, name) for name in ("refused_steps", "learner_waits", "collectors_wait")}
        episodes = [[episode.episode_return, episode.length] for episode in self._episodes]
        return {"collector": {"supervisor": self._supervisor.state_dict(), "episodes": episodes, **counts}}

    def restore(self, saved: Mapping[str, Any]) -> bool:
        """Continue the counts of a checkpoint; all workers restart with new random streams.

        Args:
            saved: mapping with the entry of ``snapshot``.

        Returns:
            Always True: this collector does not promise to continue the environments.
        """
        fields = Fields(saved, "state").fields("collector")
        self._supervisor.load_state_dict(fields.take("supervisor"), anew=True)
        self._episodes = [Episode(*pair) for pair in fields.pairs("episodes")]
        self.refused_steps, self.learner_waits = fields.integer("refused_steps"), fields.integer("learner_waits")
        self.collectors_wait = fields.integer("collectors_wait")
        return True


class Window(Protocol):
    """Converts consecutive batches to n-step transitions, like `tesserl_replay.NStepWindow`."""

    def extend(self, batch: TensorDictBase) -> TensorDictBase:
        """Add a batch ``[N, T]`` and return the complete transitions."""

    def clear(self) -> None:
        """Drop the waiting steps."""


class WorkerWindows:
    """One n-step window per worker, so that no transition spans a worker's restart or a rejected chunk.

    Args:
        make: makes a window.
        collector: provides the worker of each chunk.
    """

    def __init__(self, make: Callable[[], Window], collector: FreeCollector) -> None:
        self._make, self._collector = make, collector
        self._windows: dict[int, Window] = {}

    def extend(self, batch: TensorDictBase) -> TensorDictBase:
        """Add the chunk that was returned last, and return the complete transitions."""
        worker, continues = self._collector.source
        window = self._windows.setdefault(worker, self._make())
        if not continues:
            window.clear()
        return window.extend(batch)

    def clear(self) -> None:
        """Drop the waiting steps."""
        self._windows.clear()

    def state_dict(self) -> dict[str, Tensor]:
        """Return an empty state, because workers restart when a run resumes."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:  # noqa: ARG002 - as above
        """Drop the waiting steps."""
        self.clear()
