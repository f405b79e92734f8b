"""Read the entries of a TensorDict that the loss needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tensordict import NestedKey, TensorDictBase
from torch import Tensor

from tesserl_policy import Entries


@dataclass
class Steps:
    """The terms of the loss: one number for each step, ``[*B]``."""

    log_probs: Tensor
    entropy: Tensor
    value: Tensor
    old_log_probs: Tensor
    advantage: Tensor
    value_target: Tensor
    old_value: Tensor | None = None

    def where(self, mask: Tensor) -> Steps:
        """Return the valid steps only.

        Args:
            mask: true on valid steps, bool ``[*B]``.

        Returns:
            The valid steps, ``[num_valid]``.
        """
        rows = mask.flatten().nonzero().squeeze(-1)  # once for all columns: nonzero synchronises with the GPU
        valid: list[Any] = [
            None if column is None else column.flatten().index_select(0, rows) for column in vars(self).values()
        ]
        return Steps(*valid)


class Reader(Entries):
    """Read the entries of a batch with batch size ``*B``.

    Args:
        tensordict: the batch.
    """

    def __init__(self, tensordict: TensorDictBase) -> None:
        super().__init__(tensordict)
        self.shape: tuple[int, ...] = tensordict.batch_size

    def constant(self, key: NestedKey) -> Tensor:
        """Return an entry without gradient.

        Args:
            key: its name.

        Returns:
            The entry.

        Raises:
            KeyError: it is missing.
        """
        entry: Tensor = self.get(key)
        return entry.detach() if entry.requires_grad else entry

    def per_step(self, key: NestedKey) -> Tensor:
        """Return an entry that has one number per step, without gradient.

        Args:
            key: its name.

        Returns:
            The numbers, without the last dimension, ``[*B]``.

        Raises:
            KeyError: it is missing.
            ValueError: its shape is not ``[*B, 1]``.
        """
        entry = self.constant(key)
        if entry.shape != (*self.shape, 1):
            raise ValueError(
                f"{key} must have the shape {(*self.shape, 1)}, got {tuple(entry.shape)}; unsqueeze the last dimension"
            )
        return entry.squeeze(-1)


def without_masked(tensordict: TensorDictBase, mask: Tensor, *, in_place: bool) -> TensorDictBase:
    """Return the valid steps ``[num_valid]``; with ``in_place`` all ``[*B]``, with zeros for NaN in masked steps."""
    if not in_place:
        return tensordict[mask]

    def fill(entry: Tensor) -> Tensor:
        if not entry.is_floating_point():
            return entry
        return entry.masked_fill(~mask.reshape(mask.shape + (1,) * (entry.dim() - mask.dim())), 0)

    return tensordict.apply(fill)
