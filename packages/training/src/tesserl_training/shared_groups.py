"""Split the collection of groups of trajectories among ranks; every rank receives all trajectories."""

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

from tesserl_collectors.collector import Episode
from tesserl_collectors.groups import GroupCollector
from tesserl_ranks.group import Ranks


class SharedGroupCollector:
    """Plays this rank's share of new groups, and returns the trajectories of all ranks.

    Groups are numbered over all ranks, so that their starts do not depend on the number of ranks.

    Args:
        ranks: ranks that play.
        collector: collector of this rank.
    """

    record = None  # no workers with several ranks

    def __init__(self, ranks: Ranks, collector: GroupCollector) -> None:
        self.ranks, self.collector, self.keys = ranks, collector, collector.keys

    def set_weights(self, version: int, step: int) -> None:
        """Set the weight version of the next trajectories, see `Collector.set_weights`."""
        self.collector.set_weights(version, step)

    def collect(self, num_groups: int) -> tuple[list[TensorDictBase], Tensor]:
        """Return all trajectories of new groups, see `GroupCollector.collect`."""
        starts, ranks = self.collector.starts, self.ranks
        first = starts.next_group
        own = torch.tensor_split(torch.arange(first, first + num_groups), ranks.number)[ranks.rank]
        played: tuple[list[TensorDictBase], Tensor] = [], own
        if len(own):
            starts.next_group = int(own[0])
            trajectories, group = self.collector.collect(len(own))
            played = [trajectory.clone() for trajectory in trajectories], group  # not views: ranks send them
        starts.next_group = first + num_groups
        every = ranks.gather(played)
        return [trajectory for part, _ in every for trajectory in part], torch.cat([group for _, group in every])

    def pop_episodes(self) -> list[Episode]:
        """Return the trajectories of this rank that ended since the last call."""
        return self.collector.pop_episodes()

    def state_dict(self) -> dict[str, Any]:
        """Return the state between two calls of ``collect``."""
        return self.collector.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self.collector.load_state_dict(state)
