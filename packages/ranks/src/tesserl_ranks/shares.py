"""Parts of a batch whose other parts are on other ranks: minibatches, and normalised advantages."""

import itertools
from collections.abc import Iterator

import torch
from tensordict import TensorDictBase
from torch import Tensor

from tesserl_ranks.group import Ranks
from tesserl_ranks.statistics import moments

ADVANTAGE = "advantage"


def count_minibatches(size: int, number: int) -> int:
    """Return how many minibatches `minibatches` makes: fewer than asked for if there are too few elements."""
    return -(-size // -(-size // number)) if size else 0


def minibatches(data: TensorDictBase, number: int) -> Iterator[TensorDictBase]:
    """Shuffles a batch and splits it into parts of (almost) equal size.

    Args:
        data: the first dimension is shuffled and split.
        number: of parts.
    """
    if not data.shape[0]:
        return
    permutation = torch.randperm(data.shape[0], device=data.device)
    yield from data[permutation].split(-(-data.shape[0] // number))


def shared_minibatches(
    ranks: Ranks, data: TensorDictBase, number: int, *, normalize: bool = False
) -> Iterator[tuple[TensorDictBase, float]]:
    """Shuffle a batch and split it, with as many parts on each rank.

    Args:
        ranks: each has rows of its own, at least 1.
        data: rows of this rank; the first dimension is shuffled and split.
        number: of minibatches of the whole.
        normalize: give the advantages of each whole minibatch mean 0 and standard deviation 1. With one rank the loss
            does it.

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
        if begin == end:  # fewer rows than minibatches: this rank takes part with a row that does not count
            yield shuffled[:1], 0.0
        else:
            weight = shuffled[begin:end].numel() if mask is None else int(mask[begin:end].sum())
            yield shuffled[begin:end], float(weight)


def slices(
    ranks: Ranks, data: TensorDictBase, number: int, *, summed: str | None = None
) -> Iterator[tuple[TensorDictBase, float]]:
    """Shuffle a batch that all ranks have, split it, and take this rank's part of each minibatch.

    Args:
        ranks: with the same batch.
        data: the first dimension is shuffled and split.
        number: of minibatches.
        summed: entry of weights whose weighted sum over a whole minibatch is the loss; made larger in a part of it.

    Yields:
        Parts of minibatches, and their weights in `Ranks.reduce`.
    """
    if ranks.number == 1:
        for minibatch in minibatches(data, number):
            yield minibatch, 1.0
        return
    with ranks.agreed():
        order = torch.randperm(len(data))  # on the CPU, where the agreed generator is
    for index in torch.split(order, -(-len(data) // number)):
        own, weight = ranks.share(index)
        part = data[own.to(data.device)]
        if summed is not None:
            part[summed] = part[summed] * (len(index) / len(own))
        yield part, float(weight)


def _normalize(ranks: Ranks, data: TensorDictBase, spans: list[tuple[int, int]]) -> None:
    """Normalise the advantages of each minibatch by mean and deviation of all ranks' parts, in one exchange."""
    advantage, mask = data[ADVANTAGE], data.get("mask", None)
    parts = [_valid(advantage, mask, begin, end) for begin, end in spans]
    every = ranks.gather([moments(part) for part in parts])
    for (begin, end), of_ranks in zip(spans, zip(*every, strict=True), strict=True):
        count, mean, variance = merged(list(of_ranks))
        if count > 1:
            std = (variance * count / (count - 1)).sqrt()  # of a sample, as in `tesserl_actor_critic.functional`
            rows = advantage[begin:end]
            rows.copy_((rows.double() - mean.to(rows.device)) / (std.to(rows.device) + 1e-8))


def _valid(advantage: Tensor, mask: Tensor | None, begin: int, end: int) -> Tensor:
    """Return the advantages of the valid steps of some rows, ``[S, 1]``."""
    rows = advantage[begin:end]
    return rows.reshape(-1, 1) if mask is None else rows[mask[begin:end]].reshape(-1, 1)


def merged(parts: list[tuple[int, Tensor, Tensor]]) -> tuple[int, Tensor, Tensor]:
    """Merge counts, means and population variances of parts (Chan, Golub & LeVeque 1979), in their order."""
    count, mean, variance = parts[0]
    for number, other, spread in parts[1:]:
        if not number:
            continue
        count += number
        share, delta = number / count, other - mean
        variance = variance + share * (spread - variance) + delta.square() * share * (1 - share)
        mean = mean + share * delta
    return count, mean, variance
