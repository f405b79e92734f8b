"""Learning from preference pairs of segments: DPO and its family, CPL.

from a store of pairs:
    optionally: clone the behaviour in it
    the reference becomes the policy
repeat until ``total_steps``:
    offline: one gradient step on a batch of stored pairs, which counts as a step
    online: play groups of trajectories from the same start
            make preference pairs of them, and keep the newest pairs
            for a few epochs over these: one gradient step on each batch, stored pairs mixed in where there are any
            bring the observation statistics up to date
    log, evaluate and checkpoint when their interval has passed

A frozen reference computes the log-probabilities of each step once. Some pairs are held out for measuring.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from tensordict import TensorDictBase
from torchrl.objectives import LossModule

from tesserl_preference_data import PreferencePairs
from tesserl_preference_opt import evaluate_pairs
from tesserl_training.checkpoints.checkpoint import Checkpoint
from tesserl_training.checkpoints.loading import load_module
from tesserl_training.cloning import Cloning
from tesserl_training.journal import Journal
from tesserl_training.learner import Learner
from tesserl_training.logging import Averages
from tesserl_training.pair_batches import Batches, Part
from tesserl_training.pair_sources import FreshPairs, StoredPairs
from tesserl_training.reference_policies import Policies

ACCURACY = "rewards/accuracies"


class MakeBatch(Protocol):
    """Makes a batch from pairs."""

    def __call__(self, *parts: Part) -> TensorDictBase:
        """Return the entries that a loss reads."""


@dataclass
class Pace:
    """Sizes of an update: pairs of a batch; online also epochs over the newest pairs and the share of stored ones."""

    batch_size: int
    num_epochs: int = 1
    offline_fraction: float = 0.0


class PreferenceLoop:
    """The loop with everything that it drives. Its state, and that of its parts, is what a checkpoint holds.

    Raises:
        ValueError: there is no source of pairs.
    """

    def __init__(
        self,
        learner: Learner,
        policies: Policies,
        batches: Batches,
        stored: StoredPairs | None,
        fresh: FreshPairs | None,
        observe: Callable[[TensorDictBase], None],
        evaluating: Callable[[], AbstractContextManager[object]],
        pace: Pace,
        journal: Journal,
        cloning: Cloning | None = None,
    ) -> None:
        if stored is None and fresh is None:
            raise ValueError("expected stored pairs, fresh ones or both, got neither")
        self.learner, self.policies, self.batches = learner, policies, batches
        self.stored, self.fresh, self.observe, self.evaluating = stored, fresh, observe, evaluating
        self.pace, self.journal, self.cloning = pace, journal, cloning
        for each in (learner, *([] if cloning is None else [cloning.learner])):
            each.share(journal.ranks)
        self._prepared = False
        self._pairs = Averages()  # metrics of the pairs since the last report
        self._accuracy = Averages()  # separate: a batch of ties has no accuracy

    def run(self) -> None:
        """Train until ``total_steps``, or until ``journal.stop`` is set; write a checkpoint in both cases.

        Cloning is finished first in any case. Trajectories are never cut short: the last iteration may go beyond
        ``total_steps``.

        Raises:
            DivergenceError: the loss became NaN or infinite.
        """
        journal, stored, fresh = self.journal, self.stored, self.fresh
        if not self._prepared:
            self._prepare()
        if stored is not None:
            stored.change(self.policies.refer)
        while journal.running:
            before = journal.begin_round()
            if fresh is not None:
                trajectories = self._collect(fresh)
                updates = journal.updates
                for batch, weight in self._epochs(fresh):
                    self._update(batch, weight)
                journal.skipped += journal.updates == updates
                for trajectory in trajectories:
                    self.observe(trajectory)
            elif stored is not None:
                journal.step += 1
                self._update(*self._shared(self.batches, self._draw(stored, self.pace.batch_size)))
            journal.end_round(before, self.save, self._metrics)
        self.save()

    def _prepare(self) -> None:
        """Compute observation statistics of the stored pairs, clone, and set the reference."""
        if self.stored is not None:
            for steps in self.stored.steps():
                self.observe(steps)
            if self.cloning is not None:
                self._clone(self.cloning, self.stored)
        self.policies.restart_reference()
        self._prepared = True
        if self.cloning is not None:
            self.save()

    def _clone(self, cloning: Cloning, stored: StoredPairs) -> None:
        """Clone the stored behaviour, and report the result."""
        journal, size = self.journal, self.pace.batch_size
        for number in range(1, cloning.num_updates + 1):
            batch, weight = self._shared(self.batches.pairs, self._draw(stored, size))
            metrics = cloning.learner.update(batch, number, journal.laps.lap, weight)
            journal.averages.add(metrics)
        journal.require_finite("lower optimizer.learning_rate")
        log = {f"pretraining/{name}": value for name, value in journal.averages.pop().items()}
        if len(stored.held_out):
            log["pretraining/held_out/nll_loss"] = self._measure(cloning.learner.loss, [stored.held_out])["nll_loss"]
        journal.log.log(journal.step, log)
        journal.measure()

    def _collect(self, fresh: FreshPairs) -> list[TensorDictBase]:
        """Play groups, and store the pairs made of them."""
        journal = self.journal
        fresh.collector.set_weights(journal.updates, journal.step)
        trajectories, pairs = fresh.collect()
        journal.step += sum(len(trajectory) for trajectory in trajectories)
        journal.laps.lap("collect")
        if pairs is not None and len(pairs):
            fresh.add(self.policies.refer(pairs))
        made = 0 if pairs is None else len(pairs)
        self._pairs.add({"pairs/made": torch.tensor(made), "pairs/kept": torch.tensor(len(fresh.train))})
        journal.laps.lap("pairs")
        return trajectories

    def _draw(self, stored: StoredPairs, number: int) -> Part:
        """Return the next stored pairs, the same on all ranks."""
        with self.journal.ranks.agreed():
            return stored.draw(number)

    def _shared(self, make: MakeBatch, *parts: Part) -> tuple[TensorDictBase, float]:
        """Make a batch of this rank's share of pairs that all ranks have drawn; return it with its weight."""
        ranks = self.journal.ranks
        if ranks.number == 1:
            return make(*parts), 1.0
        shares = [(pairs, *ranks.share(index)) for pairs, index in parts]
        kept = [(pairs, index) for pairs, index, weight in shares if weight]
        return make(*(kept or [shares[0][:2]])), float(sum(weight for _, _, weight in shares))

    def _epochs(self, fresh: FreshPairs) -> Iterator[tuple[TensorDictBase, float]]:
        """Yield batches of the newest pairs, each pair once per epoch, mixed with their share of stored pairs."""
        newest, stored, size = fresh.train.pairs, self.stored, self.pace.batch_size
        if newest is None:
            return
        num_stored = 0 if stored is None else round(self.pace.offline_fraction * size)
        for _ in range(self.pace.num_epochs):
            with self.journal.ranks.agreed():
                order = torch.randperm(len(newest))
            for index in torch.split(order, max(size - num_stored, 1)):
                more = [self._draw(stored, num_stored)] if stored is not None and num_stored else []
                yield self._shared(self.batches, (newest, index), *more)

    def _update(self, batch: TensorDictBase, weight: float) -> None:
        journal = self.journal
        journal.laps.lap("batches")
        journal.updates += 1
        metrics = self.learner.update(batch, journal.updates, journal.laps.lap, weight)
        accuracy = metrics.pop(ACCURACY, None)
        label = batch.get("label", None)
        if accuracy is not None and (label is None or bool((label != 0.5).any())):
            self._accuracy.add({ACCURACY: accuracy})
        journal.averages.add(metrics)

    def _metrics(self) -> dict[str, float]:
        """Return the metrics reported besides the means of the updates."""
        self._require_finite()
        own = {f"train/{name}": value for part in (self._accuracy, self._pairs) for name, value in part.pop().items()}
        if self.stored is not None:
            own["train/pairs/epochs"] = self.stored.order.taken / self.stored.order.count
        sources = [None if self.stored is None else self.stored.held_out]
        sources.append(None if self.fresh is None else self.fresh.held_out.pairs)
        held_out = [pairs for pairs in sources if pairs is not None and len(pairs)]
        if held_out:
            measured = self._measure(self.policies.loss, held_out)
            own |= {f"held_out/{name}": value for name, value in measured.items()}
        return own

    def _measure(self, loss: LossModule, held_out: list[PreferencePairs]) -> dict[str, float]:
        """Return the mean results of a loss over held-out pairs."""
        size = max(self.pace.batch_size, 2)
        with self.evaluating():
            return evaluate_pairs(loss, (batch for pairs in held_out for batch in self.batches.all_of(pairs, size)))

    def _require_finite(self) -> None:
        self.journal.require_finite("lower optimizer.learning_rate or raise the reference's pull, beta")

    def save(self) -> None:
        """Write a checkpoint if `Journal` keeps it."""
        self._require_finite()
        self.journal.save(self.state_dict)

    def state_dict(self) -> dict[str, object]:
        """Return the state needed to resume, besides the journal's."""
        return {
            "networks": self.policies.state_dict(),
            "optimizer": self.learner.optimizer.state_dict(),
            "stored": {} if self.stored is None else self.stored.state_dict(),
            "fresh": {} if self.fresh is None else self.fresh.state_dict(),
            "pairs": self._pairs.state_dict(),
            "accuracy": self._accuracy.state_dict(),
        }

    def load(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint.

        Raises:
            StorageError: the stored pairs differ from those at the start of the run.
        """
        saved = checkpoint.state
        if self.stored is not None:
            self.stored.load_state_dict(saved["stored"])
        if self.fresh is not None:
            self.fresh.load_state_dict(saved["fresh"])
        load_module(self.policies, saved["networks"], str(checkpoint.path))
        self.learner.load_optimizer(saved["optimizer"])
        self._pairs.load_state_dict(saved["pairs"])
        self._accuracy.load_state_dict(saved["accuracy"])
        self._prepared = True
        self.journal.load(saved, restored=True)
