"""One epoch of direct preference optimisation on a two-layer policy: the passes of ``PreferenceLoss``, as they run."""

import torch
from torch import Tensor
from torch.nn.functional import linear, logsigmoid

Parameters = list[Tensor]  # weight and bias of two hidden layers and of the logits


def log_probs(p: Parameters, observation: Tensor, action: Tensor) -> Tensor:
    """Return the log-probs of actions, ``[n]``."""
    hidden = torch.tanh(linear(torch.tanh(linear(observation, p[0], p[1])), p[2], p[3]))
    return linear(hidden, p[4], p[5]).log_softmax(-1).gather(-1, action.unsqueeze(-1)).squeeze(-1)


def preference_loss(
    p: Parameters, observation: Tensor, action: Tensor, reference_log_prob: Tensor, *, beta: float
) -> Tensor:
    """DPO of a batch of pairs, chosen before rejected: observations ``[2, P, T, F]``, the rest ``[2, P, T]``."""
    policy = log_probs(p, observation.flatten(0, 2), action.flatten()).view(action.shape).sum(-1)
    ratio = policy - reference_log_prob.sum(-1)
    return -logsigmoid(beta * (ratio[0] - ratio[1])).mean()


def epoch(
    p: Parameters,
    optimizer: torch.optim.Optimizer,
    observation: Tensor,
    action: Tensor,
    reference_log_prob: Tensor,
    *,
    order: Tensor,
    batch_size: int,
    beta: float,
) -> Tensor:
    """Update once on every pair, in the order given; the mean loss. Data as above, of all pairs."""
    losses = []
    for index in order.split(batch_size):
        loss = preference_loss(p, observation[:, index], action[:, index], reference_log_prob[:, index], beta=beta)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).mean()
