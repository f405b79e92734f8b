"""Prioritised experience replay as a torchrl sampler, with a sum tree of plain tensors.

Schaul et al. 2016 (arXiv:1511.05952). torchrl's sampler needs a compiled extension, which loads only with the release
of torch for which it was built; this one works with any release.
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
    """Draw items with probability ``P(i) = p_i / sum_j p_j``, ``p_i = (priority_i + eps)^alpha``, stratified.

    Pass it to a ``TensorDictReplayBuffer`` with ``priority_key="td_error"``; the buffer calls all its methods. A
    written item, new or overwritten, gets the largest priority so far, at least 1.

    The batch contains ``priority_weight``: the importance weights ``P(i)^-beta`` (section 3.4 of the paper), divided by
    the largest weight, so that they only scale updates down. The largest weight is that of the batch, as in Rainbow and
    BTR, not that of the whole buffer.

    Args:
        capacity: capacity of the storage in items, at least 1.
        alpha: exponent of the priorities, at least 0; 0 samples uniformly. Rainbow uses 0.5, BTR 0.2.
        beta: exponent of the importance weights, in [0, 1]; 1 corrects the bias fully. May be set at any time.
        eps: added to every priority, at least 0, so that items with an error of 0 can be drawn.
        weight_exponent: ``"beta"``, or ``"alpha"`` for the weights ``P(i)^-alpha`` that Beyond The Rainbow was tuned
            with (Clark et al. 2024, arXiv:2411.03820).
        device: device of the priorities.

    Raises:
        ValueError: a number is out of its range.
    """

    reduction = "max"  # torchrl's buffer reduces a td_error with several values by this

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
        """Draw items of the storage.

        Args:
            storage: torchrl storage, not empty.
            batch_size: number of draws.

        Returns:
            The indices of the items, and ``priority_weight``, float32 ``[batch_size]`` in (0, 1].

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
            index: items ``[n]``; for a storage of several dimensions ``[n, ndim]``, or a tuple of ``[n]``. Negative
                indices are skipped: writers return them for items that they did not keep. For repeated items the last
                one wins.
            priority: finite and at least 0, such as ``td_error``, ``[n]``; or one value for all.
            storage: only needed if it has several dimensions.

        Raises:
            IndexError: an index exceeds the capacity.
            ValueError: a priority is negative, infinite or NaN, or the shapes do not match.
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
        if not 0.0 <= low <= high < math.inf:  # checked before the power, because x^0 is 1 even for NaN
            raise ValueError(f"priority must be finite and at least 0, got values from {low} to {high}")
        self._tree.update(items, (values + self._eps) ** self._alpha)
        self._largest = max(self._largest, high)

    def mark_update(self, index: _Index, *, storage: Storage | None = None) -> None:
        """Give written items the largest priority so far; torchrl's writers call this."""
        self.update_priority(index, self._largest, storage=storage)

    def exclude(self, index: _Index, *, storage: Storage | None = None) -> None:
        """Exclude items from sampling until they are written again or ``update_priority`` names them.

        Args:
            index: items, as in ``update_priority``.
            storage: only needed if it has several dimensions.

        Raises:
            IndexError: an index exceeds the capacity.
        """
        self._tree.update(self._items(index, storage), 0.0)

    def state_dict(self) -> dict[str, Tensor]:
        """Return priorities after ``alpha`` (float64 ``[capacity]``), exponents, ``eps`` and the largest priority."""
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
        """Load the files that ``dumps`` wrote."""
        self.load_state_dict(TensorDict.load_memmap(path).to_dict())

    def _empty(self) -> None:
        self._tree = SumTree(self._tree.capacity, device=self._tree.device)
        self._largest = 1.0

    def _items(self, index: _Index, storage: Storage | None) -> Tensor:
        """Return positions in the flattened storage, int64 ``[n]``."""
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


# TensorDictReplayBuffer.update_tensordict_priority ignores samplers that are not a PrioritizedSampler of torchrl
samplers.PrioritizedSampler.register(PrioritizedSampler)
