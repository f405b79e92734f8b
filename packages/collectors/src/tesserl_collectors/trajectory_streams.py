"""Give each trajectory of a group its own random stream, so that it does not depend on the slot that plays it."""

import numpy as np
import torch
from torch import Tensor

from tesserl_collectors.rollout_policy import RolloutPolicy
from tesserl_environments import GroupStarts


class TrajectoryStreams:
    """Act for one slot at a time, with the random stream of its trajectory.

    A stream is keyed by the seed of the run, the group's number in the run, and the trajectory's number in the group.
    The network gets one observation at a time, because the rounding of a matrix product may depend on the number of
    rows. So a trajectory is bit-identical in every slot, for any number of slots.

    Args:
        policy: policy on the CPU.
        starts: assigns trajectories to slots.
        seed: seed of the run.
    """

    def __init__(self, policy: RolloutPolicy, starts: GroupStarts, seed: int) -> None:
        self._policy, self._starts, self._seed = policy, starts, seed
        self._keys: list[tuple[int, int]] = []
        self._states: list[Tensor] = []

    def begin(self) -> None:
        """Drop all streams, before new groups begin."""
        self._keys = [(-1, -1)] * self._starts.num_envs
        self._states = [torch.get_rng_state()] * self._starts.num_envs

    def act(self, *inputs: Tensor) -> Tensor:
        """Return actions ``[N, ...]`` for one tensor ``[N, ...]`` per observation key."""
        rows = (tuple(tensor[slot : slot + 1].clone() for tensor in inputs) for slot in range(len(inputs[0])))
        return torch.cat([self._act(slot, row) for slot, row in enumerate(rows)])

    def _act(self, slot: int, row: tuple[Tensor, ...]) -> Tensor:
        key = self._starts.assigned[slot][-1], self._starts.members[slot][-1]
        if key != self._keys[slot] and key[0] >= 0:
            self._keys[slot] = key
            seed = np.random.SeedSequence(self._seed, spawn_key=(2, *key)).generate_state(1, np.uint64)
            self._states[slot] = torch.Generator().manual_seed(int(seed[0])).get_state()
        torch.set_rng_state(self._states[slot])
        action = self._policy.act(*row)
        self._states[slot] = torch.get_rng_state()
        return action

    def pop(self) -> list[Tensor]:
        """Return the recorded outputs of the network, each ``[N, T, ...]``."""
        num_slots = self._starts.num_envs
        return [
            record.reshape(-1, num_slots, *record.shape[2:]).transpose(0, 1)  # [T * N, 1, ...]: one call per slot
            for record in self._policy.pop()
        ]
