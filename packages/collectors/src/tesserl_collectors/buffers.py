"""Arrays into which a collector writes steps, and the TensorDict that views them as a batch."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor

from tesserl_environments import ObservationLayout


@dataclass(frozen=True)
class Column:
    """Views of the arrays of ``Buffers`` for one step of all environments; made once."""

    inputs: tuple[Tensor, ...]
    observation: dict[str, NDArray[Any]]
    following: dict[str, NDArray[Any]]  # next observations; while collecting, those of steps that end an episode
    upcoming: dict[str, NDArray[Any]]  # the policy's next inputs, after a reset if there was one
    reward: NDArray[Any]
    terminated: NDArray[Any]
    truncated: NDArray[Any]
    done: NDArray[Any]
    index: int


class Buffers:
    """Arrays ``[T, N, ...]`` for one call of ``collect``, and the TensorDict ``[N, T]`` that views them."""

    def __init__(self, num_envs: int, num_steps: int, layout: ObservationLayout) -> None:
        shape = (num_steps, num_envs)
        seen, following = layout.empty(num_steps + 1, num_envs), layout.empty(*shape)
        self._seen, self.following = seen, following
        outcome = {"reward": np.zeros((*shape, 1), np.float32)}
        outcome |= {key: np.zeros((*shape, 1), np.bool_) for key in ("terminated", "truncated", "done")}
        self.reward = outcome["reward"]
        self.terminated: NDArray[Any] = outcome["terminated"].squeeze(-1)
        self._done: NDArray[Any] = outcome["done"].squeeze(-1)
        self._mask = mask = np.ones(shape, np.bool_)
        self.columns = [
            Column(
                inputs=tuple(torch.from_numpy(seen[key][t]) for key in layout.keys),
                observation={key: seen[key][t] for key in layout.keys},
                following={key: following[key][t] for key in layout.keys},
                upcoming={key: seen[key][t + 1] for key in layout.keys},
                index=t,
                **{key: array[t, :, 0] for key, array in outcome.items()},
            )
            for t in range(num_steps)
        ]
        self.version = torch.zeros(num_envs, num_steps, dtype=torch.int64)
        self.filled_version = 0
        self._action: NDArray[Any] | None = None
        batch_size = [num_envs, num_steps]
        after = {key: _view(array) for key, array in (following | outcome).items()}
        self.batch = TensorDict(
            {
                **{key: _view(seen[key][:num_steps]) for key in layout.keys},
                "mask": _view(mask),
                "policy_version": self.version,
                "next": TensorDict(after, batch_size),
            },
            batch_size,
        )

    def write_greedy(self, column: Column, greedy: Tensor) -> None:
        """Write the greedy flags of the actions."""
        if "greedy" not in self.batch:
            self.batch.set("greedy", torch.zeros(self.batch.batch_size, dtype=torch.bool))
        self.batch.get("greedy")[:, column.index] = greedy

    def write_action(self, column: Column, actions: NDArray[Any]) -> None:
        """Write actions; the first call determines their shape and dtype."""
        if self._action is None:
            self._action = np.zeros((len(self.columns), *actions.shape), actions.dtype)
            self.batch.set("action", _view(self._action))
        self._action[column.index] = actions

    def write_following(self) -> None:
        """Write the next observations of all steps that end no episode."""
        goes_on = ~self._done
        for key, array in self.following.items():
            where = goes_on.reshape(*goes_on.shape, *(1 for _ in array.shape[2:]))
            np.copyto(array, self._seen[key][1:], where=where)

    def write_mask(self, resetting: NDArray[np.bool_]) -> None:
        """Mark the steps after the end of an episode as no transitions, for environments that then reset.

        Args:
            resetting: whether the first step resets, ``[N]``.
        """
        np.logical_not(resetting, out=self._mask[0])
        np.logical_not(self._done[:-1], out=self._mask[1:])


def _view(array: NDArray[Any]) -> Tensor:
    """Return an array ``[T, N, ...]`` as a tensor ``[N, T, ...]`` with the same memory."""
    return torch.from_numpy(array).transpose(0, 1)
