"""Interfaces of collectors for loops, which know nothing of environments and processes."""

from collections.abc import Mapping
from typing import Any, Protocol

from tensordict import TensorDictBase
from torch import Tensor

from tesserl_collectors.collector import Episode


class WorkerRecord(Protocol):
    """Record of workers that can be lost."""

    exact: bool
    """False once the run is no function of its seed any more."""

    events: list[dict[str, Any]]
    """Losses of workers: JSON data, for the state of the run."""

    def metrics(self) -> dict[str, float]:
        """Return metrics since the last call, and since the start of the run."""


class Collecting(Protocol):
    """Interface of collectors for loops."""

    @property
    def record(self) -> WorkerRecord | None:
        """The record of the workers; None if a lost worker ends the run."""

    def set_weights(self, version: int, step: int) -> None:
        """Collect with the learner's present weights from now on.

        Args:
            version: number of updates behind them.
            step: environment steps of the run so far.
        """

    def collect(self, num_steps: int) -> TensorDictBase:
        """Return ``num_steps`` steps of every environment, see `Collector.collect`."""

    def pop_episodes(self) -> list[Episode]:
        """Return the episodes that ended since the last call, in order."""

    def snapshot(self) -> dict[str, Any]:
        """Return the entries of a checkpoint from which collecting continues, environments included."""

    def restore(self, saved: Mapping[str, Any]) -> bool:
        """Continue from a checkpoint; return whether every environment is where it was."""


class GroupCollecting(Protocol):
    """Interface of collectors of groups for loops."""

    keys: list[str]
    """Observation keys."""

    @property
    def record(self) -> WorkerRecord | None:
        """The record of the workers, see `Collecting`."""

    def set_weights(self, version: int, step: int) -> None:
        """Collect with the learner's present weights from now on, see `Collecting`."""

    def collect(self, num_groups: int) -> tuple[list[TensorDictBase], Tensor]:
        """Return all trajectories of new groups, see `GroupCollector.collect`."""

    def pop_episodes(self) -> list[Episode]:
        """Return the trajectories that ended since the last call."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state between two calls of ``collect``."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
