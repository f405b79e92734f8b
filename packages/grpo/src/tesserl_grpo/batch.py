"""Read the entries of a TensorDict that the loss needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import NestedKey, TensorDictBase
from torch import Tensor

from tesserl_policy import Entries


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


class Reader(Entries):
    """Reads entries of a batch; its shape ``*B`` is the shape of the log-probabilities.

    Args:
        tensordict: the batch.
        keys: names of the entries.

    Raises:
        KeyError: there are no log-probabilities.
    """

    def __init__(self, tensordict: TensorDictBase, keys: Any) -> None:
        super().__init__(tensordict)
        self.keys = keys
        old_log_probs: Tensor = self.get(keys.sample_log_prob)
        self.old_log_probs = old_log_probs.detach() if old_log_probs.requires_grad else old_log_probs
        self.shape = old_log_probs.shape

    def steps(self, input_keys: Sequence[NestedKey], mask_keys: Iterable[NestedKey]) -> Steps:
        """Read everything that the loss needs.

        Args:
            input_keys: names of the policy's inputs.
            mask_keys: names of masks.

        Returns:
            The batch; padded steps are replaced by a valid step.

        Raises:
            KeyError: a key is missing.
            ValueError: an entry has an unexpected shape.
        """
        keys = self.keys
        inputs, action, mask = self.inputs(input_keys, mask_keys)
        self.get(keys.advantage)  # raises an error that names a missing key
        advantages: Any = self.column(keys.advantage, self.shape)
        weights = self.column(keys.step_weight, self.shape)
        reference_log_probs = self.column(keys.reference_log_prob, self.shape)
        if mask is not None and weights is not None:
            weights = torch.where(mask, weights, 0.0)
        if mask is not None and reference_log_probs is not None:
            reference_log_probs = torch.where(mask, reference_log_probs, 0.0)
        return Steps(inputs, action, mask, self.old_log_probs, advantages, weights, reference_log_probs)

    def inputs(
        self, input_keys: Sequence[NestedKey], mask_keys: Iterable[NestedKey]
    ) -> tuple[list[Tensor], Tensor, Tensor | None]:
        """Read the policy's inputs and its actions.

        Args:
            input_keys: names of the policy's inputs.
            mask_keys: names of masks.

        Returns:
            Inputs, actions, and a mask that is true on steps that all masks mark as valid. Each padded step is replaced
            by a valid one: a network's output for arbitrary padding may be infinite, and its gradient times zero is
            NaN.

        Raises:
            KeyError: a key is missing.
            ValueError: a mask has another shape.
        """
        inputs, action = [self.get(key) for key in input_keys], self.get(self.keys.action)
        mask = self.mask(mask_keys, self.shape)
        if mask is None:
            return inputs, action, None
        first_valid = mask.flatten().to(torch.uint8).argmax().reshape(1)
        inputs = [_fill(entry, mask, first_valid) if entry.is_floating_point() else entry for entry in inputs]
        return inputs, _fill(action, mask, first_valid), mask


def _fill(entry: Tensor, mask: Tensor, first_valid: Tensor) -> Tensor:
    """Replace each padded step of an entry ``[*B, ...]`` by its first valid step."""
    event_shape = entry.shape[mask.dim() :]
    step = entry.reshape(-1, *event_shape).index_select(0, first_valid)
    return torch.where(mask.reshape(*mask.shape, *(1 for _ in event_shape)), entry, step)
