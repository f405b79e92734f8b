"""Several epochs over one batch, for the loops that learn from fresh data."""

from collections.abc import Iterable

from tensordict import TensorDictBase
from torch import Tensor

from tesserl_training.journal import Journal
from tesserl_training.learner import Learner


def learn_epoch(
    learner: Learner, minibatches: Iterable[tuple[TensorDictBase, float]], journal: Journal, *, measured: bool
) -> list[dict[str, Tensor]]:
    """Take one gradient step on each minibatch.

    Args:
        learner: takes the steps.
        minibatches: with their weights, see `Learner.update`.
        journal: counts the updates and their time.
        measured: whether the metrics are needed; without it, the loss omits those that it can.

    Returns:
        The metrics of each minibatch.
    """
    learner.log_metrics(measured)
    metrics = []
    for minibatch, weight in minibatches:
        journal.laps.lap("minibatches")
        journal.updates += 1
        metrics.append(learner.update(minibatch, journal.updates, journal.laps.lap, weight))
    return metrics
