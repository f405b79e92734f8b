"""Reading what the loss needs out of a TensorDict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from torch import Tensor


@dataclass
class Steps:
    """The entries of a batch ``*B`` that the loss reads: trajectories ``[P, T]``, or steps ``[S]``."""

    inputs: list[Tensor]  # of the policy
    action: Tensor
    mask: Tensor | None  # [*B] bool
    old_log_probs: Tensor  # [*B]
    advantages: Tensor  # [*B]
    weights: Tensor | None  # [*B]
    reference_log_probs: Tensor | None  # [*B]


class Reader:
    """Reads entries of a batch of shape ``*B``, which is that of the log-probabilities.

    Args:
        tensordict: the batch.
        keys: names of the entries.

    Raises:
        KeyError: there are no log-probabilities.
    """

    def __init__(self, tensordict: TensorDictBase, keys: Any) -> None:
        self.tensordict, self.keys = tensordict, keys
        # once: getting each key by itself takes five times as long; but a lazy stack would stack what nobody asks for
        self.entries = dict(tensordict.items()) if isinstance(tensordict, TensorDict) else None
        self.old_log_probs = self.get(keys.sample_log_prob).detach()
        self.shape = self.old_log_probs.shape

    def steps(self, input_keys: Sequence[NestedKey], mask_keys: Iterable[NestedKey]) -> Steps:
        """Read everything that the loss needs.

        Args:
            input_keys: names of the policy's inputs.
            mask_keys: names of masks.

        Returns:
            The batch, in which a valid step stands wherever there was padding.

        Raises:
            KeyError: a key is missing.
            ValueError: an entry has an unexpected shape.
        """
        keys = self.keys
        inputs, action, mask = self.inputs(input_keys, mask_keys)
        self.get(keys.advantage)  # says what is missing
        columns = [self.column(key) for key in (keys.advantage, keys.step_weight, keys.reference_log_prob)]
        if mask is not None:
            columns = [None if column is None else torch.where(mask, column, 0.0) for column in columns]
        advantages, weights, reference_log_probs = columns
        return Steps(inputs, action, mask, self.old_log_probs, advantages, weights, reference_log_probs)

    def inputs(
        self, input_keys: Sequence[NestedKey], mask_keys: Iterable[NestedKey]
    ) -> tuple[list[Tensor], Tensor, Tensor | None]:
        """Read what the policy was given and what it did.

        Args:
            input_keys: names of the policy's inputs.
            mask_keys: names of masks.

        Returns:
            Inputs, actions and where steps are valid by all masks there are. Padding may hold anything, and what a
            network makes of it can be infinite, whose gradient times zero is not a number: so a valid step is put in
            the place of each padded one.

        Raises:
            KeyError: a key is missing.
            ValueError: a mask has another shape.
        """
        inputs, action = [self.get(key) for key in input_keys], self.get(self.keys.action)
        mask: Tensor | None = None
        for key in mask_keys:
            valid = self.column(key)
            if valid is not None:
                mask = valid.bool() if mask is None else mask & valid.bool()
        if mask is None:
            return inputs, action, None
        first_valid = mask.flatten().to(torch.uint8).argmax().reshape(1)
        inputs = [_fill(entry, mask, first_valid) if entry.is_floating_point() else entry for entry in inputs]
        return inputs, _fill(action, mask, first_valid), mask

    def column(self, key: NestedKey) -> Any:
        """Return an entry that has one number for each step.

        Args:
            key: its name; its shape is ``[*B]`` or ``[*B, 1]``.

        Returns:
            The numbers without gradient, ``[*B]``; None where there is no such entry.

        Raises:
            ValueError: it has another shape.
        """
        entry = self._find(key)
        if entry is None or entry.shape == self.shape:
            return None if entry is None else entry.detach()
        if entry.shape == (*self.shape, 1):
            return entry.detach().squeeze(-1)
        raise ValueError(
            f"{key} must have the shape of the log-probabilities {tuple(self.shape)}, or one more dimension of size 1, "
            f"got {tuple(entry.shape)}; expand what belongs to a trajectory to its steps"
        )

    def get(self, key: NestedKey) -> Tensor:
        """Return an entry.

        Args:
            key: its name.

        Returns:
            The entry.

        Raises:
            KeyError: it is missing; the message lists what there is.
        """
        entry = self._find(key)
        return get_entry(self.tensordict, key) if entry is None else entry

    def _find(self, key: NestedKey) -> Any:
        if self.entries is None:
            return self.tensordict.get(key, None)
        if isinstance(key, str):
            return self.entries.get(key)
        return self.tensordict.get(key, None) if key[0] in self.entries else None


def get_entry(tensordict: TensorDictBase, key: NestedKey) -> Any:
    """Return an entry.

    Args:
        tensordict: where to look.
        key: its name.

    Returns:
        The entry.

    Raises:
        KeyError: it is missing; the message lists what there is.
        TypeError: a dict was given instead of a TensorDict.
    """
    value = tensordict.get(key, None)
    if value is None:
        present = sorted(map(str, tensordict.keys()))
        _refuse_dict(tensordict, key)
        raise KeyError(f"expected the key {key!r}, the batch has {present}; rename keys with set_keys")
    return value


def _refuse_dict(tensordict: TensorDictBase, key: NestedKey) -> None:
    """Refuse a dict that was given as a batch: tensordict's ``dispatch`` takes it for the first entry alone."""
    entry: Any = tensordict
    while isinstance(entry, TensorDictBase) and len(list(entry.keys())) == 1:
        entry = entry.get(next(iter(entry.keys())))
        if isinstance(entry, TensorDictBase) and entry.get(key, None) is not None:
            raise TypeError(
                "a batch must be a TensorDict, got a dict, which counts as one entry; give TensorDict(batch, "
                "batch_size)"
            )


def _fill(entry: Tensor, mask: Tensor, first_valid: Tensor) -> Tensor:
    """Return an entry ``[*B, ...]`` with its first valid step in the place of each padded one."""
    event_shape = entry.shape[mask.dim() :]
    step = entry.reshape(-1, *event_shape).index_select(0, first_valid)
    return torch.where(mask.reshape(*mask.shape, *(1 for _ in event_shape)), entry, step)
