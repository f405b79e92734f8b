"""Collect groups of trajectories from the slots of a vector environment."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from gymnasium import spaces
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from tesserl_collectors.collector import Collector, Episode
from tesserl_collectors.rollout_policy import RolloutPolicy
from tesserl_collectors.trajectory_streams import TrajectoryStreams
from tesserl_environments import GroupStarts, VisitedStart
from tesserl_storage.fields import Fields

PATIENCE = 30.0
"""Seconds after which a collector reports that no trajectory has ended yet."""

OUTCOME = ("reward", "terminated", "done")


class StartCheck(Protocol):
    """Rejects groups whose trajectories had different first observations."""

    def __call__(self, observation: Tensor, group: Tensor, /, *, name: str) -> None:
        """Raise ValueError if the first observations ``[P, ...]`` of a group ``[P]`` differ; ``name`` is their key."""


class GroupCollector:
    """Collects whole groups of trajectories with one policy.

    Args:
        collector: steps ``starts``.
        starts: the vector environment.
        policy: chooses the actions and records the parameters of its distributions.
        keys: observation keys.
        chunk: steps of every slot between two checks for finished trajectories; it does not limit their length.
        check: rejects groups whose trajectories had different first observations; None for no check.
    """

    record = None  # this collector has no workers

    on_note: Callable[[str], None] | None = None
    """Called once with a message if no trajectory of a group ends for a long time."""

    def __init__(
        self,
        collector: Collector,
        starts: GroupStarts,
        policy: RolloutPolicy,
        keys: Sequence[str],
        *,
        chunk: int = 16,
        check: StartCheck | None = None,
    ) -> None:
        self.collector, self.starts, self.policy = collector, starts, policy
        self.keys, self.chunk, self._check = list(keys), chunk, check
        self._visited = starts.start if isinstance(starts.start, VisitedStart) else None
        self.episodes: list[Episode] = []
        self._streams: TrajectoryStreams | None = None

    def key_streams(self, seed: int) -> None:
        """Give every trajectory its own random stream, see `TrajectoryStreams`.

        Trajectories of a group are then returned in the order of their numbers, and the result depends only on the
        seed, the weights and the groups.

        Args:
            seed: seed of the run.
        """
        self._streams = TrajectoryStreams(self.policy, self.starts, seed)
        self.collector.policy = self._streams.act

    def set_weights(self, version: int, step: int) -> None:
        """Set the version of the weights for later trajectories, see `Collector.set_weights`."""
        self.collector.set_weights(version, step)

    @torch.no_grad()
    def collect(self, num_groups: int) -> tuple[list[TensorDictBase], Tensor]:
        """Play all trajectories of new groups.

        Args:
            num_groups: number of groups, at least 1.

        Returns:
            ``group_size`` trajectories ``[T_i]`` per group: the observation keys, ``action``, ``action_log_prob`` and,
            under ``next``, ``reward``, ``terminated`` and ``done``; and the group of each trajectory, ascending, int64.
            With a ``VisitedStart`` also ``step_count`` ``[T_i, 1]`` int64, the steps since the reset: replayed ones
            count, and are not in the trajectory.

        Raises:
            ValueError: trajectories of a group had different first observations.
        """
        self.starts.begin(num_groups)
        if self._streams is not None:
            self._streams.begin()
        self.collector.restart()
        parts = []
        began, wanted = time.monotonic(), self.starts.unfinished
        while self.starts.unfinished:
            batch = self.collector.collect(self.chunk)
            outcome = {name: batch["next", name].clone() for name in OUTCOME}
            kept = {key: batch[key].clone() for key in (*self.keys, "action")}
            parts.append(TensorDict({**kept, "next": outcome}, batch.batch_size))
            if self.starts.unfinished == wanted and time.monotonic() - began > PATIENCE:
                self._note(len(parts) * self.chunk)
        steps: TensorDictBase = TensorDict.cat(parts, dim=1)
        found = self._trajectories(steps)
        self.collector.pop_episodes()
        trajectories = [trajectory for _, trajectory in found]
        group = torch.tensor([group for group, _ in found])
        if self._check is not None:
            for key in self.keys:
                self._check(torch.stack([trajectory[key][0] for trajectory in trajectories]), group, name=key)
        whole = trajectories if self._visited is None else self._branched(found, self._visited)
        for trajectory in whole:
            episode_return = float(trajectory["next", "reward"].sum(dtype=torch.float64))
            self.episodes.append(Episode(episode_return, len(trajectory)))
        return trajectories, group

    def _branched(self, found: Sequence[tuple[int, TensorDictBase]], visited: VisitedStart) -> list[TensorDictBase]:
        """Add ``step_count`` to trajectories and record those from new resets, which are returned."""
        groups = {group for group, _ in found}
        prefixes = {group: visited.branch(group)[1] for group in groups}  # before `record` changes them
        whole = []
        for group, trajectory in found:
            prefix = prefixes[group]
            first = 0 if prefix is None else len(prefix)
            trajectory["step_count"] = torch.arange(first, first + len(trajectory)).unsqueeze(-1)
            if prefix is None:
                visited.record(group, trajectory["action"].numpy())
                whole.append(trajectory)
        return whole

    def _note(self, steps: int) -> None:
        """Report once that no trajectory ends."""
        if self.on_note is not None:
            self.on_note(
                f"note: no episode has ended in {steps:,} steps, and trajectories are played to their end; if the task "
                "never ends, stop and set grpo.max_length or a wrapper time_limit"
            )
        self.on_note = None

    def _trajectories(self, steps: TensorDictBase) -> list[tuple[int, TensorDictBase]]:
        """Return the trajectories with their log-probabilities, and the group of each, ascending."""
        if self._streams is None:
            parameters = [recorded.transpose(0, 1) for recorded in self.policy.pop()]
            steps["action_log_prob"] = self._log_probs(parameters, steps["action"])
            found = sorted(self._split(steps), key=lambda pair: pair[0])
            return [(group, trajectory) for group, _, trajectory in found]
        recorded = self._streams.pop()
        names = [f"parameter_{index}" for index in range(len(recorded))]
        steps.update(dict(zip(names, recorded, strict=True)))
        found = sorted(self._split(steps), key=lambda pair: pair[:2])
        for _, _, trajectory in found:  # one at a time: the rounding of a vectorised sum may depend on the other rows
            parameters = [trajectory.pop(name).clone() for name in names]
            trajectory["action_log_prob"] = self._log_probs(parameters, trajectory["action"].clone())
        return [(group, trajectory) for group, _, trajectory in found]

    def _log_probs(self, parameters: list[Tensor], action: Tensor) -> Tensor:
        """Return log-probabilities ``[*B]`` under the policy that took the actions."""
        return self.policy.network.distribution(*parameters).log_prob(action.to(parameters[0].device)).cpu()

    def _split(self, steps: TensorDictBase) -> Iterator[tuple[int, int, TensorDictBase]]:
        """Split the steps of slots into trajectories; yield each one's group, its number in the group, and its steps.

        Steps that belong to no group are dropped.
        """
        done = steps["next", "done"].squeeze(-1)
        for slot, (groups, members) in enumerate(zip(self.starts.assigned, self.starts.members, strict=True)):
            begin = 0
            ends = (done[slot].nonzero().squeeze(-1) + 1).tolist()
            for group, member, end in zip(groups, members, ends, strict=False):
                if group >= 0:
                    yield group, member, steps[slot, begin:end]
                begin = end

    def pop_episodes(self) -> list[Episode]:
        """Return the trajectories that ended since the last call."""
        episodes, self.episodes = self.episodes, []
        return episodes

    def state_dict(self) -> dict[str, Any]:
        """Return the number of groups played and the visited trajectories; no trajectory is in progress."""
        episodes = [[episode.episode_return, episode.length] for episode in self.episodes]
        state = {"next_group": self.starts.next_group, "episodes": episodes, "version": self.collector.version}
        if self._visited is None:
            return state
        kept = self._visited.trajectories
        return {**state, "visited": [{"start": start, "actions": torch.from_numpy(actions)} for start, actions in kept]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        fields = Fields(state, "collector")
        self.starts.next_group = fields.integer("next_group")
        self.episodes = [Episode(*pair) for pair in fields.pairs("episodes")]
        self.collector.version = fields.integer("version")
        if self._visited is not None and "visited" in fields.value:  # else the run had starts of another kind
            space = self.starts.single_action_space
            shape, dtype = space.shape or (), torch.float32 if isinstance(space, spaces.Box) else torch.int64
            self._visited.trajectories.clear()
            for entry in fields.items("visited"):
                kept = Fields(entry, "collector: visited")
                actions = kept.tensor("actions", (None, *shape), dtype)
                self._visited.record(kept.integer("start"), actions.numpy())
