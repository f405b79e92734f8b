"""Minibatches and normalised advantages of batches that are split across ranks."""

import itertools
from collections.abc import Iterator

import torch
from tensordict import TensorDictBase
from torch import Tensor

from tesserl_ranks.group import Ranks
from tesserl_ranks.statistics import moments

ADVANTAGE = "advantage"


def count_minibatches(size: int, number: int) -> int:
    """Return how many minibatches `minibatches` makes: at most ``number``, and at most one per element."""
    return -(-size // -(-size // number)) if size else 0


def minibatches(data: TensorDictBase, number: int) -> Iterator[TensorDictBase]:
    """Shuffle a batch and split it into parts of (almost) equal size.

    Args:
        data: batch; its first dimension is shuffled and split.
        number: number of parts.
    """
    if not data.shape[0]:
        return
    permutation = torch.randperm(data.shape[0], device=data.device)
    yield from data[permutation].split(-(-data.shape[0] // number))


def shared_minibatches(
    ranks: Ranks, data: TensorDictBase, number: int, *, normalize: bool = False
) -> Iterator[tuple[TensorDictBase, float]]:
    """Shuffle each rank's batch and split it into the same number of parts on each rank.

    Args:
        ranks: ranks; each has its own rows, at least 1.
        data: rows of this rank; their first dimension is shuffled and split.
        number: number of minibatches over all ranks.
        normalize: normalise the advantages of each minibatch over all ranks to mean 0 and standard deviation 1. With
            one rank the loss does this.

    Yields:
        Minibatches, and their weights in `Ranks.reduce`.
    """
    if ranks.number == 1:
        for minibatch in minibatches(data, number):
            yield minibatch, 1.0
        return
    rows = len(data)
    parts = count_minibatches(int(ranks.total(rows)), number)
    shuffled = data[torch.randperm(rows, device=data.device)]
    bounds = [round(part * rows / parts) for part in range(parts + 1)]
    spans = list(itertools.pairwise(bounds))
    if normalize:
        _normalize(ranks, shuffled, spans)
    mask = shuffled.get("mask", None)
    for begin, end in spans:
        if begin == end:  # fewer rows than minibatches: this rank contributes a row with weight 0
            yield shuffled[:1], 0.0
        else:
            weight = shuffled[begin:end].numel() if mask is None else int(mask[begin:end].sum())
            yield shuffled[begin:end], float(weight)


def slices(
    ranks: Ranks, data: TensorDictBase, number: int, *, summed: str | None = None
) -> Iterator[tuple[TensorDictBase, float]]:
    """Shuffle and split a batch that all ranks have, and yield this rank's part of each minibatch.

    Args:
        ranks: ranks that have the same batch.
        data: batch; its first dimension is shuffled and split.
        number: number of minibatches.
        summed: key of weights, if the loss is a weighted sum over a minibatch; the weights of a part are scaled up.

    Yields:
        Parts of minibatches, and their weights in `Ranks.reduce`.
    """
    if ranks.number == 1:
        for minibatch in minibatches(data, number):
            yield minibatch, 1.0
        return
    with ranks.agreed():
        order = torch.randperm(len(data))  # the agreed generator is on the CPU
    for index in torch.split(order, -(-len(data) // number)):
        own, weight = ranks.share(index)
        part = data[own.to(data.device)]
        if summed is not None:
            part[summed] = part[summed] * (len(index) / len(own))
        yield part, float(weight)


def _normalize(ranks: Ranks, data: TensorDictBase, spans: list[tuple[int, int]]) -> None:
    """Normalise the advantages of each minibatch by the mean and deviation over all ranks, in one exchange."""
    advantage, mask = data[ADVANTAGE], data.get("mask", None)
    parts = [_valid(advantage, mask, begin, end) for begin, end in spans]
    every = ranks.gather([moments(part) for part in parts])
    for (begin, end), of_ranks in zip(spans, zip(*every, strict=True), strict=True):
        count, mean, variance = merged(list(of_ranks))
        if count > 1:
            std = (variance * count / (count - 1)).sqrt()  # sample deviation, as in `tesserl_actor_critic.functional`
            rows = advantage[begin:end]
            rows.copy_((rows.double() - mean.to(rows.device)) / (std.to(rows.device) + 1e-8))


def _valid(advantage: Tensor, mask: Tensor | None, begin: int, end: int) -> Tensor:
    """Return the advantages of the valid steps in a range of rows, ``[S, 1]``."""
    rows = advantage[begin:end]
    return rows.reshape(-1, 1) if mask is None else rows[mask[begin:end]].reshape(-1, 1)


def merged(parts: list[tuple[int, Tensor, Tensor]]) -> tuple[int, Tensor, Tensor]:
    """Merge counts, means and population variances of parts, in order (Chan, Golub & LeVeque 1979)."""
    count, mean, variance = parts[0]
    for number, other, spread in parts[1:]:
        if not number:
            continue
        count += number
        share, delta = number / count, other - mean
        variance = variance + share * (spread - variance) + delta.square() * share * (1 - share)
        mean = mean + share * delta
    return count, mean, variance
