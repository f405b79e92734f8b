"""Losses of IQN and QR-DQN on a two-layer body: the passes of ``IQNLoss`` in the order in which they run."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Parameters = list[Tensor]  # weight and bias of two body layers, of the embedding, and of one or two layers of the head


def rectified(hidden: Tensor) -> Tensor:
    """ReLU of the output of a linear layer, written over it where no gradient is needed."""
    return torch.relu(hidden) if hidden.requires_grad else torch.relu_(hidden)


def body(p: Parameters, observation: Tensor) -> Tensor:
    hidden = rectified(functional.linear(observation, p[0], p[1]))
    return rectified(functional.linear(hidden, p[2], p[3]))


def quantiles(p: Parameters, features: Tensor, taus: Tensor, frequencies: Tensor) -> Tensor:
    """Return quantile values ``[B, K, A]``."""
    embedding = rectified(functional.linear(torch.cos(taus.unsqueeze(-1) * frequencies), p[4], p[5]))
    hidden = features.unsqueeze(1) * embedding
    if len(p) == 10:
        hidden = rectified(functional.linear(hidden, p[6], p[7]))
    return functional.linear(hidden, p[-2], p[-1])


def iqn_loss(
    online: Parameters,
    target: Parameters,
    frequencies: Tensor,
    observation: Tensor,
    action: Tensor,
    reward: Tensor,
    next_observation: Tensor,
    terminated: Tensor,
    *,
    discount: float,
    num_taus: int,
    num_policy_taus: int,
) -> Tensor:
    """Double-Q IQN loss of a batch ``[B]`` (observations ``[B, F]``); the mean over it."""
    batch_size = len(reward)
    with torch.no_grad():
        taus = torch.rand(batch_size, num_taus)
        next_quantiles = quantiles(target, body(target, next_observation), taus, frequencies)
    taus = torch.rand(batch_size, num_taus)
    values = quantiles(online, body(online, observation), taus, frequencies)
    predicted = values.gather(-1, action.view(-1, 1, 1).expand(-1, num_taus, 1))  # [B, N, 1]
    with torch.no_grad():
        policy_taus = torch.rand(num_policy_taus)
        next_values = quantiles(online, body(online, next_observation), policy_taus, frequencies).mean(1)
        best = next_values.argmax(-1).view(-1, 1, 1).expand(-1, num_taus, 1)
        bootstrap = torch.where(terminated, 0.0, discount).unsqueeze(-1)
        targets = reward.unsqueeze(-1) + bootstrap * next_quantiles.gather(-1, best).squeeze(-1)
    return pairwise_loss(predicted.squeeze(-1), taus, targets).mean()


def qr_loss(
    online: Parameters,
    target: Parameters,
    observation: Tensor,
    action: Tensor,
    reward: Tensor,
    next_observation: Tensor,
    terminated: Tensor,
    *,
    discount: float,
    num_quantiles: int,
    pairwise: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """Double-Q QR-DQN loss of a batch ``[B]`` (observations ``[B, F]``), a linear head; the mean over it."""

    def values(p: Parameters, observation: Tensor) -> Tensor:  # [B, N, A]
        return functional.linear(body(p, observation), p[4], p[5]).view(len(observation), num_quantiles, -1)

    def of(quantiles: Tensor, action: Tensor) -> Tensor:
        return quantiles.gather(-1, action.view(-1, 1, 1).expand(-1, num_quantiles, 1)).squeeze(-1)

    with torch.no_grad():
        next_quantiles = values(target, next_observation)
    predicted = of(values(online, observation), action)
    with torch.no_grad():
        best = values(online, next_observation).mean(1).argmax(-1)
        bootstrap = torch.where(terminated, 0.0, discount).unsqueeze(-1)
        targets = reward.unsqueeze(-1) + bootstrap * of(next_quantiles, best)
    taus = ((torch.arange(num_quantiles) + 0.5) / num_quantiles).expand_as(predicted)
    return pairwise(predicted, taus, targets).mean()


def pairwise_loss(predicted: Tensor, taus: Tensor, targets: Tensor) -> Tensor:
    """Quantile Huber loss of each row, predictions and their fractions ``[B, N]``, targets ``[B, M]``."""
    shape = (*predicted.shape, targets.shape[-1])
    targets, predicted = targets.unsqueeze(1).expand(shape), predicted.unsqueeze(-1).expand(shape)
    huber = functional.smooth_l1_loss(predicted, targets, reduction="none")
    taus = taus.unsqueeze(-1)
    weight = torch.where(targets < predicted, 1 - taus, taus)
    return (weight * huber).sum((1, 2)) / shape[-1]


def fusable_pairwise_loss(predicted: Tensor, taus: Tensor, targets: Tensor) -> Tensor:
    """Compute `pairwise_loss` in operations that torch.compile fuses into one loop: a tenth of its compiled time."""
    error = targets.unsqueeze(1) - predicted.unsqueeze(2)
    size = error.abs()
    huber = torch.where(size < 1, 0.5 * error * error, size - 0.5)
    return ((taus.unsqueeze(2) - (error < 0).float()).abs() * huber).mean(2).sum(1)


def cosine_frequencies(num_cosines: int) -> Tensor:
    return torch.linspace(0, (num_cosines - 1) * math.pi, num_cosines)
