"""Prioritised experience replay as a torchrl sampler, on a tree of plain tensors.

Schaul et al. 2016 (arXiv:1511.05952). torchrl's own sampler needs a compiled extension that loads only with the one
torch it was built against; this one works with any.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.data.replay_buffers import samplers
from torchrl.data.replay_buffers.storages import Storage

from tesserl_replay.sum_tree import SumTree

_Index = Tensor | int | tuple[Tensor, ...]


class PrioritizedSampler(samplers.Sampler):
    """Draws items with probability ``P(i) = p_i / sum_j p_j``, ``p_i = (priority_i + eps)^alpha``, stratified.

    Give it to a ``TensorDictReplayBuffer`` with ``priority_key="td_error"``; the buffer calls everything else. A
    written item, new or overwritten, gets the largest priority seen so far, at least 1.

    The batch carries ``priority_weight``, the importance weights ``P(i)^-beta`` (equation in section 3.4 of the paper)
    divided by the largest of the batch, so that they only ever scale an update down. The largest is that of the batch,
    as in Rainbow and BTR, not that of the whole buffer.

    Args:
        capacity: items that the storage holds, at least 1.
        alpha: how much priorities count, at least 0; 0 is uniform sampling. Rainbow 0.5, BTR 0.2.
        beta: how much importance weights correct for it, in [0, 1]. May be set at any time.
        eps: added to every priority, at least 0; keeps an item of zero error in play.
        weight_exponent: ``"beta"``, or ``"alpha"`` for the weights ``P(i)^-alpha`` that Beyond The Rainbow was tuned
            with (Clark et al. 2024, arXiv:2411.03820).
        device: where the priorities live.

    Raises:
        ValueError: a number is out of its range.
    """

    reduction = "max"  # how torchrl's buffer makes one priority of a td_error with several values

    def __init__(
        self,
        capacity: int,
        *,
        alpha: float = 0.5,
        beta: float = 0.4,
        eps: float = 1e-6,
        weight_exponent: Literal["beta", "alpha"] = "beta",
        device: torch.device | str | None = None,
    ) -> None:
        if not alpha >= 0.0:
            raise ValueError(f"alpha must be at least 0, got {alpha}; 0 is uniform sampling")
        if not eps >= 0.0:
            raise ValueError(f"eps must be at least 0, got {eps}")
        if weight_exponent not in ("beta", "alpha"):
            raise ValueError(f'weight_exponent must be "beta" or "alpha", got {weight_exponent!r}')
        self._tree = SumTree(capacity, device=device)
        self._alpha, self._eps, self._weight_exponent = alpha, eps, weight_exponent
        self._largest = 1.0  # priority p_1 of the paper's algorithm 1; before eps and alpha
        self.beta = beta

    @property
    def alpha(self) -> float:
        """Exponent of the priorities."""
        return self._alpha

    @property
    def beta(self) -> float:
        """Exponent of the importance weights."""
        return self._beta

    @beta.setter
    def beta(self, value: float) -> None:
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"beta must be in [0, 1], got {value}; 1 corrects in full")
        self._beta = value

    @property
    def default_priority(self) -> float:
        """Priority of a written item, before ``eps`` and ``alpha``: the largest seen so far, at least 1."""
        return self._largest

    def sample(self, storage: Storage, batch_size: int) -> tuple[Any, dict[str, Any]]:
        """Draws items of the storage.

        Args:
            storage: torchrl storage, not empty.
            batch_size: number of draws.

        Returns:
            The index of the items, and ``priority_weight``, float32 ``[batch_size]`` in (0, 1].

        Raises:
            RuntimeError: the storage is empty.
        """
        if len(storage) == 0:
            raise RuntimeError("cannot sample from an empty storage; extend the buffer first")
        index, probability = self._tree.sample(batch_size, generator=self._rng)
        exponent = self._beta if self._weight_exponent == "beta" else self._alpha
        weight = (probability.min() / probability).float() ** exponent
        if storage.ndim > 1:
            return torch.unravel_index(index, storage.shape), {"priority_weight": weight}
        return index, {"priority_weight": weight}

    def update_priority(self, index: _Index, priority: Tensor | float, *, storage: Storage | None = None) -> None:
        """Set the priorities of items after learning from them.

        Args:
            index: items ``[n]``; with a storage of several dimensions ``[n, ndim]``, or a tuple of ``[n]``. Those below
                0, which writers leave for items that they did not keep, are passed over. The last one of equals wins.
            priority: finite and at least 0, such as ``td_error``, ``[n]``; or one value for all.
            storage: needed where it has several dimensions.

        Raises:
            IndexError: an item lies beyond the capacity.
            ValueError: a priority is negative, infinite or NaN, or the shapes do not agree.
        """
        items = self._items(index, storage)
        values = torch.as_tensor(priority, dtype=torch.float64, device=self._tree.device).detach().flatten()
        if len(items) and int(items.min()) < 0:
            kept = items >= 0
            values = values[kept] if len(values) == len(items) else values
            items = items[kept]
        if not len(items):
            return
        low, high = (float(bound) for bound in values.aminmax())
        if not 0.0 <= low <= high < math.inf:  # before the power of 0, which would make 1 of anything
            raise ValueError(f"priority must be finite and at least 0, got values from {low} to {high}")
        self._tree.update(items, (values + self._eps) ** self._alpha)
        self._largest = max(self._largest, high)

    def mark_update(self, index: _Index, *, storage: Storage | None = None) -> None:
        """Give written items the largest priority seen so far; torchrl's writers call this."""
        self.update_priority(index, self._largest, storage=storage)

    def exclude(self, index: _Index, *, storage: Storage | None = None) -> None:
        """Exclude items from sampling until they are written again or ``update_priority`` names them.

        Args:
            index: items, as in ``update_priority``.
            storage: needed where it has several dimensions.

        Raises:
            IndexError: an item lies beyond the capacity.
        """
        self._tree.update(self._items(index, storage), 0.0)

    def state_dict(self) -> dict[str, Tensor]:
        """Priorities after ``alpha`` (``[capacity]`` float64), and scalars: exponents, ``eps``, largest priority."""
        scalars = {"alpha": self._alpha, "beta": self._beta, "eps": self._eps, "largest": self._largest}
        tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in scalars.items()}
        return {**self._tree.state_dict(), **tensors}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load priorities, exponents, ``eps`` and the largest priority.

        Raises:
            ValueError: the capacities differ.
        """
        self._tree.load_state_dict(state_dict)
        self._alpha, self._eps = float(state_dict["alpha"]), float(state_dict["eps"])
        self.beta, self._largest = float(state_dict["beta"]), float(state_dict["largest"])

    def dumps(self, path: str | Path) -> None:
        """Write ``state_dict()`` to a directory, as memory-mapped tensors."""
        TensorDict(self.state_dict()).memmap(path)

    def loads(self, path: str | Path) -> None:
        """Read the files of ``dumps``."""
        self.load_state_dict(TensorDict.load_memmap(path).to_dict())

    def _empty(self) -> None:
        self._tree = SumTree(self._tree.capacity, device=self._tree.device)
        self._largest = 1.0

    def _items(self, index: _Index, storage: Storage | None) -> Tensor:
        """Positions in the flattened storage, int64 ``[n]``."""
        items = torch.stack(index, -1) if isinstance(index, tuple) else torch.as_tensor(index)
        items = items.to(self._tree.device)
        if items.ndim < 2:
            return items.reshape(-1)
        if storage is None:
            raise ValueError("an index of several dimensions needs the storage; pass storage=")
        flat = items[..., 0]
        for dim, size in enumerate(storage.shape[1:], start=1):
            flat = flat * size + items[..., dim]
        return flat.reshape(-1)

    def __repr__(self) -> str:
        settings = f"alpha={self._alpha}, beta={self._beta}, eps={self._eps}"
        return f"PrioritizedSampler({self._tree.capacity}, {settings})"


# TensorDictReplayBuffer.update_tensordict_priority passes over samplers that are not torchrl's own
samplers.PrioritizedSampler.register(PrioritizedSampler)
