"""Sample in proportion to priorities, with plain tensors.

Schaul et al. 2016 (arXiv:1511.05952), appendix B.2.1, as a tree of three wide levels: priorities, sums of groups of
``width`` priorities, and the total. With 2^20 items, a batch needs a search in 2^14 running sums and one in a group, a
few tensor operations in all. A binary tree would need twenty rounds of operations.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


class SumTree:
    """Priorities of a fixed number of items, in double precision.

    Sums are always recomputed from the priorities, never adjusted by differences, so rounding errors do not accumulate.

    Args:
        capacity: number of items, at least 1; all start with priority 0.
        device: where the priorities live; the CPU by default.

    Raises:
        ValueError: ``capacity`` is below 1.
    """

    def __init__(self, capacity: int, *, device: torch.device | str | None = None) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self.capacity = capacity
        self.device = torch.device("cpu" if device is None else device)
        width = 64
        while capacity > width * 2**15:  # balances the sizes of the two searches
            width *= 2
        self._groups = torch.zeros(-(-capacity // width), width, dtype=torch.float64, device=self.device)
        self._sums = self._groups.sum(-1)
        self._running = torch.zeros(len(self._sums) + 1, dtype=torch.float64, device=self.device)  # workspace

    @property
    def priorities(self) -> Tensor:
        """Priorities of all items, float64 ``[capacity]``: a view; change it only through ``update``."""
        return self._groups.view(-1)[: self.capacity]

    @property
    def total(self) -> Tensor:
        """Sum of all priorities, a float64 scalar."""
        return self._sums.sum()

    def update(self, index: Tensor | int, priority: Tensor | float) -> None:
        """Set priorities.

        Args:
            index: items, integers in [0, capacity), any shape. For repeated items the last one wins.
            priority: finite and at least 0, one for each index, or one for all.

        Raises:
            IndexError: an item is out of range.
            TypeError: ``index`` does not hold integers.
            ValueError: a priority is negative, infinite or NaN, or there are too few or too many.
        """
        items, values = self._checked(index, priority)
        priorities = self._groups.view(-1)
        priorities[items] = values
        if (priorities[items] != values).any():  # an item is repeated, and torch does not define which write wins
            items, values = _last_of_equals(items, values)
            priorities[items] = values
        if len(items) < len(self._sums):
            groups = items // self._groups.shape[1]
            self._sums[groups] = self._groups.index_select(0, groups).sum(-1)
        else:
            self._sums = self._groups.sum(-1)

    def sample(self, num: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw items in proportion to their priorities, one from each of ``num`` equal parts of the total.

        Args:
            num: number of draws, with replacement.
            generator: random generator, on the device of the tree.

        Returns:
            The items, int64 ``[num]``, in the order of the parts, and the probability of each, float64 ``[num]``. An
            item of priority 0 is never drawn.

        Raises:
            ValueError: all priorities are 0.
        """
        total = float(torch.cumsum(self._sums, 0, out=self._running[1:])[-1])
        if total == 0.0:
            raise ValueError("cannot draw from a sum tree whose priorities are all 0; update() some of them first")
        part = torch.rand(num, dtype=torch.float64, device=self.device, generator=generator)
        part += torch.arange(num, device=self.device)
        # slightly less than the total, so that rounding cannot exceed the last group
        index, priority = self._find(part.mul_(total * (1 - 2**-50) / num))
        return index, priority.div_(total)

    def _find(self, mass: Tensor) -> tuple[Tensor, Tensor]:
        """Return the items where the running sum of priorities exceeds ``mass`` ``[num]``, and their priorities."""
        group = torch.searchsorted(self._running[1:], mass, right=True)
        rest = mass - self._running[group]
        within = self._groups.index_select(0, group).cumsum(-1)
        width = self._groups.shape[1]
        place = torch.searchsorted(within, rest.unsqueeze(-1), right=True).squeeze(-1).clamp_(max=width - 1)
        index = place.add_(group, alpha=width)
        priorities = self._groups.view(-1)
        priority = priorities[index]
        if not priority.all():  # rounding has selected an item of priority 0 at the edge of its group
            index = torch.where(priority > 0, index, priorities.argmax())
            priority = priorities[index]
        return index, priority

    def state_dict(self) -> dict[str, Tensor]:
        """Return the priorities: ``priorities``, float64 ``[capacity]``."""
        return {"priorities": self.priorities.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the priorities of a tree of the same capacity.

        Args:
            state: result of ``state_dict``.

        Raises:
            ValueError: the capacities differ, or a priority is negative, infinite or NaN.
        """
        priorities = state["priorities"]
        if priorities.shape != (self.capacity,):
            raise ValueError(
                f"priorities must have shape ({self.capacity},), the capacity of this tree, got "
                f"{tuple(priorities.shape)}; build the tree with the capacity it was saved with"
            )
        self.update(torch.arange(self.capacity, device=self.device), priorities)

    def _checked(self, index: Tensor | int, priority: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return flat int64 items and float64 priorities of the same length; reject values out of range."""
        items = torch.as_tensor(index, device=self.device)
        if items.is_floating_point() or items.dtype == torch.bool:
            raise TypeError(f"index must hold integers, got {items.dtype}")
        items = items.flatten().long()
        values = torch.as_tensor(priority, dtype=torch.float64, device=self.device).detach().flatten()
        if len(values) != len(items):
            if len(values) != 1:
                raise ValueError(f"priority must hold one value or one per index ({len(items)}), got {len(values)}")
            values = values.expand(len(items))
        if len(items):
            first, last = (int(bound) for bound in items.aminmax())
            if first < 0 or last >= self.capacity:
                raise IndexError(f"index must be in [0, {self.capacity}), got values from {first} to {last}")
            low, high = (float(bound) for bound in values.aminmax())  # NaN if any value is NaN
            if not 0.0 <= low <= high < torch.inf:
                raise ValueError(f"priority must be finite and at least 0, got values from {low} to {high}")
        return items, values


def _last_of_equals(items: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Keep only the last entry of each item."""
    items, order = items.sort(stable=True)
    last = torch.ones_like(items, dtype=torch.bool)
    last[:-1] = items[1:] != items[:-1]
    return items[last], values[order[last]]
