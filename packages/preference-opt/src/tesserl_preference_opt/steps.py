"""Arrange the steps of padded segments for one pass of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tensordict import NestedKey, TensorDictBase
from torch import Tensor
from torch.nn.functional import pad

from tesserl_policy import get_entry, masked_mean
from tesserl_preference_data import Segments, read_segments
from tesserl_preference_opt.functional import sum_log_probs


@dataclass
class PairKeys:
    """Names of the entries of a batch of pairs; losses that read more entries extend it."""

    chosen: NestedKey = "chosen"
    rejected: NestedKey = "rejected"
    label: NestedKey = "label"
    action: NestedKey = "action"
    mask: NestedKey = "mask"


def read_pairs(tensordict: TensorDictBase, keys: PairKeys) -> tuple[tuple[Segments, Segments], Tensor | None]:
    """Read a batch of pairs.

    Args:
        tensordict: the batch, ``[P]``.
        keys: names of ``chosen``, ``rejected``, ``mask`` and ``label``.

    Returns:
        Chosen and rejected segments; and the probability that the chosen one is better, ``[P]``, on the device of the
        steps, or None where it is 1 for all. A label on the CPU is read there, and no GPU is waited for.

    Raises:
        KeyError: chosen or rejected is missing.
        ValueError: an entry has another shape.
    """
    chosen, rejected = (
        read_segments(get_entry(tensordict, key), keys.mask, str(key)) for key in (keys.chosen, keys.rejected)
    )
    label = tensordict.get(keys.label, None)
    num_pairs = len(chosen.mask)
    if len(rejected.mask) != num_pairs or (label is not None and label.numel() != num_pairs):
        raise ValueError(
            f"chosen, rejected and label must be equally many, got {num_pairs}, {len(rejected.mask)} and "
            f"{num_pairs if label is None else label.numel()}"
        )
    if label is None:
        return (chosen, rejected), None
    label = label.reshape(num_pairs)
    if not torch.compiler.is_compiling():
        if (label == 1).all():
            return (chosen, rejected), None
        if not ((label >= 0) & (label <= 1)).all():
            raise ValueError(f"label must be in [0, 1], got {label}; train on pairs.labelled()")
    return (chosen, rejected), on_device(label, device_of(chosen))


def device_of(segments: Segments) -> torch.device:
    """Return the device of the steps of segments, whose mask may be on the CPU.

    Args:
        segments: with entries.
    """
    leaves = segments.steps.values(include_nested=True, leaves_only=True)
    device: torch.device = next((leaf.device for leaf in leaves if leaf.device.type != "cpu"), segments.mask.device)
    return device


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a small tensor to a device without waiting for the copy."""
    if tensor.device == device:
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def pair_keys(keys: PairKeys, entries: Sequence[NestedKey]) -> list[NestedKey]:
    """Return the full names of entries of both segments of a pair."""
    sides = [side if isinstance(side, tuple) else (side,) for side in (keys.chosen, keys.rejected)]
    unique = [entry if isinstance(entry, tuple) else (entry,) for entry in dict.fromkeys(entries)]
    return [(*side, *entry) for side in sides for entry in unique]


class Steps:
    """The steps of one or more batches of padded segments, concatenated for one pass of a network.

    Without time, the layout is the valid steps only, ``[n]``: padding costs nothing and has no effect. With time
    (recurrent networks), and under ``torch.compile``, where shapes must not depend on data, the layout is ``[P, T]``,
    and padding is replaced by a valid step of its segment. ``P`` counts the segments of all batches.

    Masks may be on the CPU and everything else on a GPU. The valid steps are then found without waiting for the GPU.

    Args:
        segments: batches of segments; with time they must have the same ``T``.
        keep_time: whether the network needs the order of the steps.

    Raises:
        ValueError: with time, the ``T`` of the batches differ.
    """

    def __init__(self, segments: Sequence[Segments], *, keep_time: bool = False) -> None:
        self._segments, self._device = segments, device_of(segments[0])
        lengths = [each.mask.shape[1] for each in segments]
        self.padded = keep_time or torch.compiler.is_compiling()
        if self.padded and len(set(lengths)) > 1:
            raise ValueError(f"chosen and rejected must be padded to one length, got {lengths}")
        longest = max(lengths)
        self._read_mask = torch.cat(  # on its original device
            [
                each.mask if each.mask.shape[1] == longest else pad(each.mask, (0, longest - each.mask.shape[1]))
                for each in segments
            ]
        )
        self.mask = on_device(self._read_mask, self._device)
        if self.padded:
            self.batch_size = self.mask.shape
        else:
            self._index = None if self._read_mask.all() else self._places(self._read_mask)
            self.batch_size = torch.Size((self.mask.numel() if self._index is None else len(self._index),))
        self._places_of: list[Tensor] | None = None
        self._cache: dict[NestedKey, Tensor] = {}

    @property
    def valid(self) -> Tensor | None:
        """Valid steps of `unpack`, ``[P, T]``; None if all are valid."""
        return None if not self.padded and self._index is None else self.mask

    def get(self, key: NestedKey) -> Tensor:
        """Return an entry of all steps.

        Args:
            key: its name.

        Returns:
            ``[n, ...]``, or ``[P, T, ...]`` with time.

        Raises:
            KeyError: it is missing.
            ValueError: chosen and rejected differ in it.
        """
        if key not in self._cache:
            entries = [get_entry(each.steps, key, siblings=("chosen",)) for each in self._segments]
            parts = [self._part(entry, number) for number, entry in enumerate(entries)]
            try:
                self._cache[key] = torch.cat(parts)
            except RuntimeError as error:
                shapes = " and ".join(str(list(part.shape[1:])) for part in parts)
                raise ValueError(
                    f"{key} of a step must have one shape in chosen and rejected, got {shapes}; use one encoding"
                ) from error
        return self._cache[key]

    def unpack(self, values: Tensor) -> Tensor:
        """Return values of the steps as padded segments.

        Args:
            values: one for each step, in the shape of ``batch_size``.

        Returns:
            ``[P, T]``; 0 on padding, without gradient there.
        """
        if self.padded:
            return torch.where(self.mask, values, 0.0)
        if self._index is not None:
            values = values.new_zeros(self.mask.numel()).index_copy(0, self._index, values)
        return values.view(self.mask.shape)

    def sums(self, values: Tensor, *, discount: float, tail_weight: float = 1.0) -> Tensor:
        """Sum values over segments.

        Args:
            values: one for each step, in the shape of ``batch_size``.
            discount: see `sum_log_probs`.
            tail_weight: weight of the steps of a pair's longer segment after the end of the shorter one; below 1 the
                segments are those of pairs: first the chosen ones, then the rejected.

        Returns:
            ``[P]``.
        """
        if tail_weight != 1:
            shorter = self.mask.sum(dim=1).view(2, -1).amin(dim=0).repeat(2).unsqueeze(1)
            weights = torch.where(self.mask.cumsum(dim=1) > shorter, tail_weight, 1.0)
            return sum_log_probs(self.unpack(values) * weights, self.valid, discount=discount)[0]
        if discount == 1 and self.valid is None:
            return values.view(self.mask.shape).sum(dim=1)  # takes a fifth of the time of the general case below
        return sum_log_probs(self.unpack(values), self.valid, discount=discount)[0]

    def lengths(self, *, discount: float) -> Tensor:
        """Return the sums of the weights of the steps: without a discount the lengths of the segments, ``[P]``.

        Args:
            discount: see `sum_log_probs`.
        """
        return sum_log_probs(torch.zeros_like(self.mask, dtype=torch.float32), self.mask, discount=discount)[1]

    def elsewhere(self, values: Tensor) -> Tensor:
        """Give every step the value of the same step of the next segment; a shorter segment is repeated.

        Args:
            values: one for each step, in the shape of ``batch_size`` and perhaps more dimensions.

        Returns:
            Values in the same shape; the last segment gets those of the first.
        """
        if self.padded:
            return values.roll(-1, dims=0)
        lengths = self._read_mask.sum(dim=1)
        starts = lengths.cumsum(0) - lengths
        own = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
        following = own.add(1).remainder(len(lengths))
        step = torch.arange(len(own), device=own.device) - starts[own]
        place = (starts[following] + step % lengths[following].clamp_min(1)).remainder(len(own))
        return values[on_device(place, self._device)]

    def mean(self, values: Tensor) -> Tensor:
        """Compute the mean over valid steps.

        Args:
            values: one for each step: ``batch_size`` and perhaps more dimensions.

        Returns:
            A scalar.
        """
        return masked_mean(values, _like(self.mask, values) if self.padded else None)

    def _places(self, mask: Tensor) -> Tensor:
        """Return the indices of the valid steps in a flattened batch, on the device of the steps."""
        return on_device(mask.flatten().nonzero().squeeze(-1), self._device)

    def _part(self, entry: Tensor, number: int) -> Tensor:
        """Return the part of an entry that belongs to batch ``number``."""
        if not self.padded:
            if self._index is None:
                return entry.flatten(0, 1)
            if self._places_of is None:  # per batch, because ``T`` may differ
                self._places_of = [self._places(each.mask) for each in self._segments]
            return entry.flatten(0, 1).index_select(0, self._places_of[number])
        mask = on_device(self._segments[number].mask, self._device)
        # not padding: its NaN times a gradient of zero is NaN, and its actions may be out of bounds
        first_valid = mask.to(torch.uint8).argmax(dim=1)
        filling = entry[torch.arange(len(entry), device=entry.device), first_valid].unsqueeze(1)
        return torch.where(_like(mask, entry), entry, filling)


def _like(mask: Tensor, entry: Tensor) -> Tensor:
    return mask.reshape(mask.shape + (1,) * (entry.dim() - mask.dim())).expand_as(entry)
