"""On-policy learning from rollouts of the current policy.

repeat until ``total_steps``:
    collect a rollout with the sampling policy
    compute values, advantages and the log-probabilities of the actions
    for a few epochs: one gradient step on each of the shuffled minibatches
    bring the observation statistics up to date
    log, evaluate and checkpoint when their interval has passed

Within a round, learning starts from the same policy, including its observation statistics, that collected the rollout.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from tesserl_collectors.interfaces import Collecting
from tesserl_ranks.shares import shared_minibatches
from tesserl_training.checkpoints.checkpoint import Checkpoint
from tesserl_training.checkpoints.loading import load_module
from tesserl_training.journal import Journal
from tesserl_training.learner import Learner
from tesserl_training.loops.epochs import learn_epoch


@dataclass
class Pace:
    """Sizes of a round: steps of every environment in a rollout, epochs over it, minibatches of an epoch.

    ``target_kl`` is in nats: a round ends after an epoch in which the mean KL divergence exceeded it.
    """

    num_steps: int
    num_epochs: int
    num_minibatches: int
    target_kl: float | None = None


class Learned(Protocol):
    """The policy of a loop, around the trained network."""

    @property
    def network(self) -> nn.Module:
        """The network; a checkpoint keeps its state dict."""

    def state_dict(self) -> dict[str, object]:
        """Return the state of the policy besides the network."""

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Continue from ``state_dict``."""


class Batches(Protocol):
    """Makes the batch of a loss from a rollout."""

    def __call__(self, rollout: TensorDictBase) -> TensorDictBase:
        """Return the entries that the loss reads, from a new rollout ``[N, T]``."""

    def state_dict(self) -> dict[str, object]:
        """Return the state kept between two rollouts."""

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Continue from ``state_dict``."""


class OnPolicyLoop:
    """The loop of on-policy learning; a checkpoint stores its state and that of its parts.

    Args:
        learner: makes gradient steps.
        collector: collects rollouts with ``policy``.
        policy: acts, and records the outputs of its network.
        batches: makes the batch of the loss from a rollout.
        observe: updates the observation statistics with a rollout.
        pace: sizes of a round.
        journal: counts, reports, evaluates and saves.
        remedy: advice in the error about a loss that is not finite.
        normalize: normalise the advantages of each minibatch here, over all ranks; the loss sees only one rank's part.
    """

    def __init__(
        self,
        learner: Learner,
        collector: Collecting,
        policy: Learned,
        batches: Batches,
        observe: Callable[[TensorDictBase], None],
        pace: Pace,
        journal: Journal,
        *,
        remedy: str = "lower optimizer.learning_rate",
        normalize: bool = False,
    ) -> None:
        self.learner, self.collector, self.policy, self.batches = learner, collector, policy, batches
        self.observe, self.pace, self.journal, self.remedy = observe, pace, journal, remedy
        self.normalize = normalize
        learner.share(journal.ranks)

    def run(self) -> None:
        """Train until ``total_steps``, or until ``journal.stop`` is set; write a checkpoint in both cases.

        A rollout is never cut short: the last one may go beyond ``total_steps``.

        Raises:
            DivergenceError: the loss became NaN or infinite.
        """
        journal = self.journal
        while journal.running:
            before = journal.begin_round()
            self.collector.set_weights(journal.updates, journal.step)
            rollout = self.collector.collect(self.pace.num_steps)
            journal.step += rollout.numel() * journal.ranks.number
            journal.laps.lap("collect")
            batch = self.batches(rollout)
            journal.laps.lap("advantages")
            self._learn(batch)
            self.observe(rollout)
            journal.end_round(before, self.save)
        self.save()

    def _learn(self, batch: TensorDictBase) -> None:
        """Run the epochs over the rollout, and record the metrics of the last one."""
        journal = self.journal
        if journal.ranks.some(not len(batch)):  # all ranks must take the same number of gradient steps
            journal.skipped += 1
            return
        last, target_kl = self.pace.num_epochs - 1, self.pace.target_kl
        measured: list[dict[str, Tensor]] = []
        for epoch in range(self.pace.num_epochs):
            parts = shared_minibatches(journal.ranks, batch, self.pace.num_minibatches, normalize=self.normalize)
            measured = learn_epoch(self.learner, parts, journal, measured=epoch == last or target_kl is not None)
            if target_kl is not None and _divergence(measured) > target_kl:
                break
        for metrics in measured:
            journal.averages.add(metrics)
        journal.watch_finite(self.remedy)

    def save(self) -> None:
        """Write a checkpoint."""
        self.journal.save(self.state_dict)

    def state_dict(self) -> dict[str, object]:
        """Return the state needed to resume, besides the journal's. Rollouts never outlive a round."""
        return {
            "networks": self.policy.network.state_dict(),
            "optimizer": self.learner.optimizer.state_dict(),
            **self.collector.snapshot(),
            "policy": self.policy.state_dict(),
            "rewards": self.batches.state_dict(),
        }

    def load(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint."""
        saved = checkpoint.state
        load_module(self.policy.network, saved["networks"], str(checkpoint.path))
        self.learner.load_optimizer(saved["optimizer"])
        self.policy.load_state_dict(saved["policy"])
        self.batches.load_state_dict(saved["rewards"])
        restored = self.collector.restore(saved)
        self.journal.load(saved, restored=restored)


def _divergence(metrics: list[dict[str, Tensor]]) -> float:
    """Return the mean of Schulman's estimate of the KL divergence, which is never negative."""
    return float(torch.stack([each["mean_ratio"] - 1 + each["kl_approx"] for each in metrics]).mean())
