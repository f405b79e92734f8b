"""Reading what the loss needs out of a TensorDict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tensordict import NestedKey, TensorDictBase
from torch import Tensor


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
        """Leave out what is not valid.

        Args:
            mask: true on valid steps, bool ``[*B]``.

        Returns:
            The valid steps, ``[num_valid]``.
        """
        valid: list[Any] = [None if column is None else column[mask] for column in vars(self).values()]
        return Steps(*valid)


class Reader:
    """Reads entries of a batch of shape ``*B``.

    Args:
        tensordict: the batch.
    """

    def __init__(self, tensordict: TensorDictBase) -> None:
        self.tensordict = tensordict
        self.shape: tuple[int, ...] = tensordict.batch_size
        self.entries = dict(tensordict.items())  # once: getting each key by itself takes five times as long

    def get(self, key: NestedKey) -> Tensor:
        """Return an entry.

        Args:
            key: its name.

        Returns:
            The entry.

        Raises:
            KeyError: it is missing; the message lists what there is.
        """
        entry: Tensor | None = self.entries.get(key) if isinstance(key, str) else self.tensordict.get(key, None)
        if entry is None:
            only = next(iter(self.entries.values())) if len(self.entries) == 1 else None
            if isinstance(only, TensorDictBase) and key in only.keys():  # noqa: SIM118 (iterates over rows)
                raise TypeError(
                    "a batch must be a TensorDict, got a dict, which counts as one entry; give TensorDict(batch, "
                    "batch_size)"
                )
            raise KeyError(f"expected the key {key!r}, the batch has {sorted(self.entries)}; rename keys with set_keys")
        return entry

    def constant(self, key: NestedKey) -> Tensor:
        """Return an entry without gradient.

        Args:
            key: its name.

        Returns:
            The entry.

        Raises:
            KeyError: it is missing.
        """
        entry = self.get(key)
        return entry.detach() if entry.requires_grad else entry

    def column(self, key: NestedKey) -> Tensor:
        """Return an entry that has one number for each step.

        Args:
            key: its name.

        Returns:
            The numbers, without the last dimension and without gradient, ``[*B]``.

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

    def mask(self, keys: Iterable[NestedKey]) -> Tensor | None:
        """Return where steps are valid by all masks there are.

        Args:
            keys: their names; their shapes are ``[*B]`` or ``[*B, 1]``.

        Returns:
            True on valid steps, bool ``[*B]``; None where there is no mask.
        """
        valid: Tensor | None = None
        for key in keys:
            if (key if isinstance(key, str) else key[0]) not in self.entries:
                continue
            mask = self.tensordict.get(key, None)
            if mask is not None:
                mask = mask.reshape(self.shape).bool()
                valid = mask if valid is None else valid & mask
        return valid


def without_masked(tensordict: TensorDictBase, mask: Tensor, *, in_place: bool) -> TensorDictBase:
    """Return a batch in which masked steps do no harm.

    Args:
        tensordict: the batch.
        mask: true on valid steps, bool ``[*B]``.
        in_place: whether every step stays where it is, as recurrent networks need it; the numbers of masked steps are
            zeros then, because NaN times a gradient of zero would be NaN.

    Returns:
        The valid steps alone, ``[num_valid]``, or all of them, ``[*B]``.
    """
    if not in_place:
        return tensordict[mask]

    def fill(entry: Tensor) -> Tensor:
        if not entry.is_floating_point():
            return entry
        return entry.masked_fill(~mask.reshape(mask.shape + (1,) * (entry.dim() - mask.dim())), 0)

    return tensordict.apply(fill)
