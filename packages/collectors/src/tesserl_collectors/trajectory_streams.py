"""Random streams of trajectories in groups, which make each of them independent of where it is played."""

import numpy as np
import torch
from torch import Tensor

from tesserl_collectors.rollout_policy import RolloutPolicy
from tesserl_environments import GroupStarts


class TrajectoryStreams:
    """Acts for one slot after the other, each time with the random stream of the trajectory that is played there.

    A stream is keyed by the seed of the run, the group (which is numbered over the whole run) and the number of the
    trajectory within it. The network gets one observation at a time, since the bits of a product of matrices may
    depend on the number of rows. So a trajectory has the same bits in every slot, of any number of slots.

    Args:
        policy: acts, on the CPU.
        starts: knows what is played in each slot.
        seed: of the run.
    """

    def __init__(self, policy: RolloutPolicy, starts: GroupStarts, seed: int) -> None:
        self._policy, self._starts, self._seed = policy, starts, seed
        self._keys: list[tuple[int, int]] = []
        self._states: list[Tensor] = []

    def begin(self) -> None:
        """Forget all streams: other groups follow."""
        self._keys = [(-1, -1)] * self._starts.num_envs
        self._states = [torch.get_rng_state()] * self._starts.num_envs

    def act(self, *inputs: Tensor) -> Tensor:
        """Return actions ``[N, ...]`` for one tensor ``[N, ...]`` of each observation key."""
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
            record.reshape(-1, num_slots, *record.shape[2:]).transpose(0, 1)  # [T * N, 1, ...]: one call for each slot
            for record in self._policy.pop()
        ]
