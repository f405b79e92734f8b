"""Off-policy learning from replayed transitions with a target network.

repeat until ``total_steps``:
    collect a few steps with the exploring policy
    turn them into n-step transitions and store them
    for every ``update_interval`` environment steps, or every ``batch_size / ratio`` stored transitions: draw a batch,
        one gradient step, one target update
    log, evaluate and checkpoint when their interval has passed
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from tensordict import TensorDictBase
from torch import Tensor

from tesserl_collectors.interfaces import Collecting
from tesserl_storage.errors import StorageError
from tesserl_storage.fields import Fields
from tesserl_training.checkpoints.checkpoint import Checkpoint
from tesserl_training.checkpoints.loading import load_module
from tesserl_training.journal import Journal
from tesserl_training.learner import Learner
from tesserl_training.replay import PriorityError, Replay

REMEDY = "lower optimizer.learning_rate or iqn.max_grad_norm"
"""Remedy in the error about a loss that is not finite."""


@dataclass
class Pace:
    """Alternation of collecting and learning, in environment steps (``batch_size`` in transitions).

    Exactly one of ``update_interval`` and ``ratio`` is a number; ``ratio`` is the mean number of draws per transition.
    """

    collect_steps: int
    warmup_steps: int
    update_interval: int | None
    batch_size: int
    ratio: float | None = None

    def updates_of(self, steps: int) -> float:
        """Return the approximate number of updates due for a number of environment steps."""
        if self.update_interval is not None:
            return steps / self.update_interval
        return (self.ratio or 0.0) * steps / self.batch_size

    def updates(self, owed: float, steps: int, transitions: float) -> tuple[int, float]:
        """Return the number of due updates, and the remainder.

        Args:
            owed: remainder of the earlier rounds.
            steps: environment steps of this round.
            transitions: learnable transitions stored in this round, averaged over ranks.

        Returns:
            The number of updates, and the remainder in environment steps or in transitions to draw.
        """
        if self.update_interval is not None:
            return divmod(int(owed) + steps, self.update_interval)
        number, rest = divmod(owed + (self.ratio or 0.0) * transitions, self.batch_size)
        return int(number), rest


class Window(Protocol):
    """Turns chunks of steps into transitions, see `tesserl_replay.NStepWindow`."""

    def extend(self, batch: TensorDictBase) -> TensorDictBase:
        """Add a chunk ``[N, T]`` and return the transitions ``[M]`` that are complete."""

    def clear(self) -> None:
        """Drop the waiting steps."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the waiting steps."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from ``state_dict``."""


class OffPolicyLoop:
    """The loop of off-policy learning; a checkpoint stores its state and that of its parts.

    With several ranks, each rank has its own replay buffer and draws its part of every batch from it.

    Args:
        learner: makes gradient steps.
        collector: collects transitions with the exploring policy.
        window: sums the rewards of n steps.
        replay: replay buffer of this rank.
        pace: alternation of collecting and learning, with the environment steps of all ranks.
        journal: counts, reports, evaluates and saves.
        prepare_test: prepares a batch of held-out transitions.
        observe: updates the observation statistics with a batch, if acting does not do so.
    """

    def __init__(
        self,
        learner: Learner,
        collector: Collecting,
        window: Window,
        replay: Replay,
        pace: Pace,
        journal: Journal,
        *,
        prepare_test: Callable[[TensorDictBase], None] | None = None,
        observe: Callable[[TensorDictBase], None] | None = None,
    ) -> None:
        self.learner, self.collector, self.window, self.replay = learner, collector, window, replay
        self.pace, self.journal, self._prepare_test, self._observe = pace, journal, prepare_test, observe
        learner.share(journal.ranks)
        self._owed: float = 0  # remainder of `Pace.updates` since the warm-up

    def run(self) -> None:
        """Train until ``total_steps``, or until ``journal.stop`` is set; write a checkpoint in both cases.

        Raises:
            DivergenceError: the loss became NaN or infinite.
        """
        journal = self.journal
        while journal.running:
            before = journal.begin_round()
            self.collector.set_weights(journal.updates, journal.step)
            batch = self.collector.collect(self.pace.collect_steps)
            journal.step += batch.numel() * journal.ranks.number
            if self._observe is not None:
                self._observe(batch)
            journal.laps.lap("collect")
            transitions = self.replay.extend(self.window.extend(batch))
            journal.laps.lap("replay")
            self._learn(before, transitions)
            journal.end_round(before, self.save, self._metrics)
        self.save()

    def _metrics(self) -> dict[str, float]:
        return {"replay/size": self.journal.ranks.total(len(self.replay)), **self._test()}

    def _test(self) -> dict[str, float]:
        """Return the metrics of the loss on the held-out transitions."""
        batch = self.replay.test_batch(self.pace.batch_size, seed=self.journal.step)
        if batch is None:
            return {}
        loss = self.learner.evaluate(batch, self._prepare_test)["loss"]
        return {"test/loss": float(loss), "test/td_error": float(batch["td_error"].mean())}

    def _learn(self, before: int, transitions: int) -> None:
        """Take all updates due for the collected steps."""
        journal, ranks = self.journal, self.journal.ranks
        if journal.step < self.pace.warmup_steps:
            return
        if ranks.some(not self.replay.can_draw):
            journal.skipped += 1
            return
        stored = transitions if self.pace.ratio is None else ranks.total(transitions) / ranks.number
        number, self._owed = self.pace.updates(self._owed, journal.step - before, stored)
        try:
            self._update(number)
        except PriorityError:
            journal.require_finite(REMEDY)
            raise
        if number:
            journal.watch_finite(REMEDY)

    def _update(self, number: int) -> None:
        """Take a number of gradient steps."""
        journal = self.journal
        for batch in self.replay.batches(number, self.pace.batch_size):
            journal.laps.lap("replay")
            journal.updates += 1
            metrics = self.learner.update(batch, journal.updates, journal.laps.lap)
            journal.averages.add({**metrics, "td_error": batch["td_error"].mean()})
            self.replay.update_priority(batch)

    def save(self) -> None:
        """Write a checkpoint."""
        self.journal.save(self.state_dict, self.replay.write)
        self.replay.prune(self.journal.checkpoints.newest())

    def state_dict(self) -> dict[str, object]:
        """Return the state needed to resume, besides the journal's and the stored transitions."""
        return {
            "networks": self.learner.loss.state_dict(),
            "optimizer": self.learner.optimizer.state_dict(),
            **self.collector.snapshot(),
            "window": self.window.state_dict(),
            "replay": self.replay.state_dict(),
            "owed": self._owed,
        }

    def load(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint.

        Raises:
            StorageError: the replay of the checkpoint is missing or damaged.
        """
        saved = checkpoint.state
        self.replay.load(saved["replay"], checkpoint.manifest["replay"])
        load_module(self.learner.loss, saved["networks"], str(checkpoint.path))
        self.learner.load_optimizer(saved["optimizer"])
        self.window.load_state_dict(saved["window"])
        self._owed = Fields(saved, "state").number("owed", least=0)
        if not self._owed < max(self.pace.update_interval or 0, self.pace.batch_size):
            raise StorageError(f"{checkpoint.path}: owed: expected less than one update's steps, got {self._owed}")
        restored = self.collector.restore(saved)
        if not restored:
            self.window.clear()
        self.journal.load(saved, restored=restored)
