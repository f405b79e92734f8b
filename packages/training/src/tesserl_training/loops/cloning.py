"""Behaviour cloning as a run; another run can start from its weights.

the observation statistics become those of the data
repeat for a number of gradient updates, which count as steps:
    one gradient step on a batch: the actions taken become more likely
    log, evaluate and checkpoint when their interval has passed
"""

from collections.abc import Callable

from tensordict import TensorDictBase
from torch import nn

from tesserl_storage.errors import StorageError
from tesserl_training.checkpoints.checkpoint import Checkpoint
from tesserl_training.journal import Journal
from tesserl_training.learner import Learner

CLONED = "cloned"
"""Entry of a checkpoint that marks it as the result of cloning, not of an algorithm."""


class CloningLoop:
    """The loop of behaviour cloning.

    Args:
        learner: makes gradient steps on the loss of behaviour cloning.
        draw: returns the next batch.
        saved: module whose state dict a checkpoint stores as ``networks``.
        journal: counts, reports, evaluates and saves; its steps are gradient updates.
    """

    def __init__(
        self, learner: Learner, draw: Callable[[], TensorDictBase], saved: nn.Module, journal: Journal
    ) -> None:
        self.learner, self.draw, self.saved, self.journal = learner, draw, saved, journal

    def run(self) -> None:
        """Train until ``total_steps``, or until ``journal.stop`` is set; write a checkpoint in both cases.

        Raises:
            DivergenceError: the loss became NaN or infinite.
        """
        journal = self.journal
        while journal.running:
            before = journal.begin_round()
            journal.step += 1
            journal.updates += 1
            batch = self.draw()
            journal.laps.lap("batches")
            journal.averages.add(self.learner.update(batch, journal.updates, journal.laps.lap))
            journal.end_round(before, self.save, self._metrics)
        self.save()

    def _metrics(self) -> dict[str, float]:
        self.journal.require_finite("lower optimizer.learning_rate")
        return {}

    def save(self) -> None:
        """Write a checkpoint of the network if `Journal` keeps it."""
        self._metrics()
        state = {"networks": self.saved.state_dict(), "optimizer": self.learner.optimizer.state_dict(), CLONED: True}
        self.journal.save(lambda: state)

    def load(self, checkpoint: Checkpoint) -> None:
        """Refuse to resume: cloning is short and starts again instead.

        Raises:
            StorageError: always.
        """
        raise StorageError(f"{checkpoint.path}: cloning does not continue; start it again in another directory")


def refuse_cloned(checkpoint: Checkpoint) -> None:
    """Refuse to continue from the checkpoint of a cloning run.

    Raises:
        StorageError: the checkpoint comes from cloning.
    """
    if CLONED in checkpoint.state:
        raise StorageError(
            f"{checkpoint.path}: a policy that tesserl pretrain made, not a run that could continue; "
            f"start a run from it with --set initial_weights={checkpoint.path.parent.parent}"
        )
