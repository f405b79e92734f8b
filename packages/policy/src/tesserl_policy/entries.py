"""Read entries of a batch, with errors for missing entries and wrong shapes.

Shapes: ``*B`` is the batch shape: steps ``[S]``, or trajectories ``[P, T]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tensordict import NestedKey, TensorDict, TensorDictBase
from torch import Tensor


class Entries:
    """Read entries of a batch.

    A TensorDict takes five times as long as a dict to return an entry. So the entries are copied to a dict once, except
    those of a lazy stack: this would stack entries that are not needed.

    Args:
        tensordict: the batch.
    """

    def __init__(self, tensordict: TensorDictBase) -> None:
        self.tensordict = tensordict
        self._entries = dict(tensordict.items()) if isinstance(tensordict, TensorDict) else None

    def find(self, key: NestedKey) -> Any:
        """Return an entry, or None if it is missing.

        Args:
            key: name of the entry.
        """
        if self._entries is None:
            return self.tensordict.get(key, None)
        if isinstance(key, str):
            return self._entries.get(key)
        return self.tensordict.get(key, None) if key[0] in self._entries else None

    def get(self, key: NestedKey) -> Any:
        """Return an entry.

        Args:
            key: name of the entry.

        Raises:
            KeyError: the entry is missing; the message lists the entries of the batch.
            TypeError: the batch is a dict.
        """
        entry = self.find(key)
        return get_entry(self.tensordict, key) if entry is None else entry

    def column(self, key: NestedKey, shape: Sequence[int]) -> Tensor | None:
        """Return an entry that has one number per step, without gradient.

        Args:
            key: name of the entry; its shape is ``[*B]`` or ``[*B, 1]``.
            shape: the batch shape ``*B``.

        Returns:
            The numbers, ``[*B]``; None if there is no such entry.

        Raises:
            ValueError: the entry has another shape.
        """
        entry: Tensor | None = self.find(key)
        if entry is None:
            return None
        if entry.requires_grad:  # only if needed, because a detach costs as much as an operation
            entry = entry.detach()
        if entry.shape == shape:
            return entry
        if entry.shape == (*shape, 1):
            return entry.squeeze(-1)
        raise ValueError(
            f"{key} must have the shape of the steps {tuple(shape)}, or one more dimension of size 1, got "
            f"{tuple(entry.shape)}; expand what belongs to a trajectory to its steps"
        )

    def mask(self, keys: Iterable[NestedKey], shape: Sequence[int]) -> Tensor | None:
        """Return which steps are valid according to all masks of the batch.

        Args:
            keys: names of the masks; a mask that is missing is skipped.
            shape: the batch shape ``*B``.

        Returns:
            True on valid steps, bool ``[*B]``; None if the batch has no mask.

        Raises:
            ValueError: a mask has another shape than ``[*B]`` or ``[*B, 1]``.
        """
        valid: Tensor | None = None
        for key in keys:
            mask = self.column(key, shape)
            if mask is not None:
                valid = mask.bool() if valid is None else valid & mask.bool()
        return valid


def get_entry(tensordict: TensorDictBase, key: NestedKey, *, siblings: Sequence[NestedKey] = ()) -> Any:
    """Return an entry.

    Args:
        tensordict: where to look.
        key: name of the entry.
        siblings: other keys, used to recognise a dict that was passed as the batch.

    Returns:
        The entry.

    Raises:
        KeyError: the entry is missing; the message lists the entries of the batch.
        TypeError: a dict was given instead of a TensorDict.
    """
    entry = tensordict.get(key, None)
    if entry is None:
        present = sorted(map(str, tensordict.keys()))
        _reject_dict(tensordict, (key, *siblings))
        raise KeyError(f"expected the key {key!r}, the batch has {present}; rename keys with set_keys")
    return entry


def _reject_dict(tensordict: TensorDictBase, keys: Sequence[NestedKey]) -> None:
    """Reject a dict that was passed as a batch: tensordict's ``dispatch`` treats it as the first entry."""
    entry: Any = tensordict
    while isinstance(entry, TensorDictBase) and len(list(entry.keys())) == 1:
        entry = entry.get(next(iter(entry.keys())))
        if isinstance(entry, TensorDictBase) and any(entry.get(key, None) is not None for key in keys):
            raise TypeError(
                "a batch must be a TensorDict, got a dict, which counts as one entry; give TensorDict(batch, "
                "batch_size)"
            )
