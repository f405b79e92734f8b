"""Learning from replayed transitions: act, store, learn from random batches, follow with a target network.

repeat until ``total_steps``:
    collect a few steps with the exploring policy
    turn them into n-step transitions and store them
    for every ``update_interval`` environment steps: draw a batch, one gradient step, one target update
    log, evaluate and checkpoint when their interval has passed
"""

from dataclasses import dataclass
from typing import Any

from tesserl_iqn.replay import NStepWindow
from tesserl_trainer.run import resumable
from tesserl_trainer.run.checkpoint import Checkpoint
from tesserl_trainer.run.collect import Collector
from tesserl_trainer.run.journal import Journal
from tesserl_trainer.run.learner import Learner
from tesserl_trainer.run.replay import Replay


@dataclass
class Pace:
    """How collecting and learning alternate, in environment steps (``batch_size`` in transitions)."""

    collect_steps: int
    warmup_steps: int
    update_interval: int
    batch_size: int


class OffPolicyLoop:
    """The loop with everything that it drives. Its state, and that of its parts, is what a checkpoint holds."""

    def __init__(
        self,
        learner: Learner,
        collector: Collector,
        window: NStepWindow,
        replay: Replay,
        pace: Pace,
        journal: Journal,
    ) -> None:
        self.learner, self.collector, self.window, self.replay = learner, collector, window, replay
        self.pace, self.journal = pace, journal
        self._owed = 0  # environment steps since the warm-up that have not been paid for with updates

    def run(self) -> None:
        """Trains until ``total_steps``, or until ``journal.stop`` is set; leaves a checkpoint in both cases.

        Raises:
            DivergenceError: the loss became NaN or infinite.
        """
        journal = self.journal
        while journal.running:
            before = journal.begin_round()
            self.collector.set_weights(None, journal.updates)
            batch = self.collector.collect(self.pace.collect_steps)
            journal.step += batch.numel()
            journal.laps.lap("collect")
            self.replay.extend(self.window.extend(batch))
            journal.laps.lap("replay")
            self._learn(before)
            journal.end_round(before, self.save, lambda: {"replay/size": len(self.replay)})
        self.save()

    def _learn(self, before: int) -> None:
        """All updates that the collected steps pay for."""
        journal = self.journal
        if journal.step < self.pace.warmup_steps or not len(self.replay):
            return
        self._owed += journal.step - before
        number, self._owed = divmod(self._owed, self.pace.update_interval)
        for batch in self.replay.batches(number, self.pace.batch_size):
            journal.laps.lap("replay")
            journal.updates += 1
            metrics = self.learner.update(batch, journal.updates, journal.laps.lap)
            journal.averages.add({**metrics, "td_error": batch["td_error"].mean()})
            self.replay.update_priority(batch)
        if number:
            journal.require_finite("lower optimizer.learning_rate or iqn.max_grad_norm")

    def save(self) -> None:
        """Writes a checkpoint of everything."""
        self.journal.save(self.state_dict, self.replay.write)
        self.replay.prune(self.journal.checkpoints.newest())

    def state_dict(self) -> dict[str, Any]:
        """What a continued run needs besides the journal, the stored transitions excepted."""
        return {
            "networks": self.learner.loss.state_dict(),
            "optimizer": self.learner.optimizer.state_dict(),
            "collector": self.collector.state_dict(),
            "environments": resumable.snapshot(self.collector.environments),
            "window": self.window.state_dict(),
            "replay": self.replay.state_dict(),
            "owed": self._owed,
        }

    def load(self, checkpoint: Checkpoint) -> None:
        """Continues from a checkpoint.

        Raises:
            CheckpointError: its replay is missing or damaged.
        """
        saved = checkpoint.state
        self.replay.load(saved["replay"], checkpoint.manifest["replay"])
        self.learner.loss.load_state_dict(saved["networks"])
        self.learner.load_optimizer(saved["optimizer"])
        self.window.load_state_dict(saved["window"])
        self._owed = saved["owed"]
        restored = resumable.restore(self.collector.environments, saved["environments"])
        self.collector.load_state_dict(saved["collector"], restart=not restored)
        if not restored:
            self.window.clear()
        self.journal.load(saved, restored=restored)
