"""Interfaces of collectors for training loops, independent of environments and processes."""

from collections.abc import Mapping
from typing import Any, Protocol

from tensordict import TensorDictBase
from torch import Tensor

from tesserl_collectors.collector import Episode


class WorkerRecord(Protocol):
    """Record of lost workers."""

    exact: bool
    """False once the run is no longer reproducible from its seed."""

    events: list[dict[str, Any]]
    """Events of lost workers, as JSON data for the state of the run."""

    def metrics(self) -> dict[str, float]:
        """Return metrics since the last call, and since the start of the run."""


class Collecting(Protocol):
    """Interface of collectors for training loops."""

    @property
    def record(self) -> WorkerRecord | None:
        """The record of the workers; None if a lost worker ends the run."""

    def set_weights(self, version: int, step: int) -> None:
        """Use the learner's current weights from now on.

        Args:
            version: number of updates that made the weights.
            step: environment steps of the run so far.
        """

    def collect(self, num_steps: int) -> TensorDictBase:
        """Return ``num_steps`` steps of every environment, see `Collector.collect`."""

    def pop_episodes(self) -> list[Episode]:
        """Return the episodes that ended since the last call, in order."""

    def snapshot(self) -> dict[str, Any]:
        """Return the entries for a checkpoint, including the states of the environments."""

    def restore(self, saved: Mapping[str, Any]) -> bool:
        """Continue from a checkpoint; return whether all environments are in their saved states."""


class GroupCollecting(Protocol):
    """Interface of collectors of groups for training loops."""

    keys: list[str]
    """Observation keys."""

    @property
    def record(self) -> WorkerRecord | None:
        """The record of the workers, see `Collecting`."""

    def set_weights(self, version: int, step: int) -> None:
        """Use the learner's current weights from now on, see `Collecting`."""

    def collect(self, num_groups: int) -> tuple[list[TensorDictBase], Tensor]:
        """Return all trajectories of new groups, see `GroupCollector.collect`."""

    def pop_episodes(self) -> list[Episode]:
        """Return the trajectories that ended since the last call."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state between two calls of ``collect``."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
