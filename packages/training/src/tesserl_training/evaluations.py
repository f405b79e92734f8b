"""Periodic evaluations of a run: their metrics, the best weights so far, and early stopping.

The order in which results count does not depend on speed. The result of an evaluation in this process counts at once.
The result of an evaluation in the background counts when the next evaluation is due, before that one begins, or at the
end. The weights under evaluation get a checkpoint, which becomes the best one or is removed like any other.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from tesserl_collectors.evaluation import Evaluation
from tesserl_storage.fields import Fields
from tesserl_training.checkpoints.names import checkpoint_name
from tesserl_training.checkpoints.run_checkpoints import Checkpoints
from tesserl_training.logging import MetricsLog
from tesserl_training.progress import ProgressDisplay


@dataclass(frozen=True)
class EarlyStopping:
    """Rule that ends a run before ``total_steps``: a number of evaluations in a row must reach a target return."""

    target: float
    evaluations: int


class Player(Protocol):
    """Plays the evaluation episodes with one set of weights at a time."""

    in_background: bool
    """True if training continues during an evaluation."""

    def begin(self, weights: Mapping[str, Tensor] | None = None) -> None:
        """Start an evaluation of these weights; None takes the network's current ones."""

    def result(self) -> Evaluation:
        """Wait for the started evaluation and return its result."""

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights that are being evaluated."""

    def look(self) -> None:
        """Raise the error of a failed evaluation, without waiting."""


class PlayerHere:
    """Plays evaluations in this process, immediately.

    Args:
        play: plays the evaluation episodes with the network's current weights.
        with_weights: gives the network other weights inside a ``with`` block.
    """

    in_background = False

    def __init__(
        self,
        play: Callable[[], Evaluation],
        with_weights: Callable[[Mapping[str, Tensor]], AbstractContextManager[None]],
    ) -> None:
        self._play, self._with_weights = play, with_weights
        self._weights: dict[str, Tensor] = {}
        self._result: Evaluation | None = None

    def begin(self, weights: Mapping[str, Tensor] | None = None) -> None:
        """Evaluate these weights; None takes the network's current ones."""
        self._weights = dict(weights or {})
        with nullcontext() if weights is None else self._with_weights(weights):
            self._result = self._play()

    def result(self) -> Evaluation:
        """Return the result."""
        if self._result is None:
            raise RuntimeError("no evaluation was begun; call begin() first")
        return self._result

    def weights(self) -> dict[str, Tensor]:
        """Return the weights that were passed to ``begin``."""
        return self._weights

    def look(self) -> None:
        """Do nothing: ``begin`` raises errors itself."""


class Evaluations:
    """The evaluations of a run; every checkpoint includes their state.

    Args:
        player: plays the episodes.
        checkpoints: checkpoints of the run.
        log: receives the metrics.
        progress: shows the results to the user.
        early_stopping: rule that ends the run before ``total_steps``; None: no such rule.
    """

    def __init__(
        self,
        player: Player,
        checkpoints: Checkpoints,
        log: MetricsLog,
        progress: ProgressDisplay,
        early_stopping: EarlyStopping | None = None,
    ) -> None:
        self.player, self.checkpoints, self.log, self.progress = player, checkpoints, log, progress
        self.early_stopping = early_stopping
        self.reached = 0  # evaluations in a row that reached the target of early stopping
        self.best: dict[str, Any] | None = None  # name and mean return of the best checkpoint
        self.pending: int | None = None  # step of the weights whose result does not count yet

    @property
    def stopped_early(self) -> bool:
        """Return whether enough evaluations in a row have reached the target of early stopping."""
        return self.early_stopping is not None and self.reached >= self.early_stopping.evaluations

    def look(self) -> None:
        """Raise the error of a failed background evaluation."""
        self.player.look()

    def measure(self, step: int) -> None:
        """Play the evaluation episodes and log their result; ignore it for the best weights and early stopping.

        Args:
            step: step of the current weights.
        """
        self.player.begin()
        self._record(step)

    def evaluate(self, step: int, save: Callable[[], None], *, is_last: bool) -> None:
        """Evaluate the current weights; first let a pending result count.

        Args:
            step: step of the current weights.
            save: writes a checkpoint of the whole loop.
            is_last: whether training is over; then wait for the result.
        """
        self.settle(step)
        if self.stopped_early:
            return
        self.player.begin()
        self.pending = step
        if self.player.in_background and not is_last:
            save()
        else:
            self.settle(step, save)

    def settle(self, step: int, save: Callable[[], None] | None = None) -> None:
        """Wait for the pending evaluation, if there is one, and let it count.

        Args:
            step: current step of the run.
            save: writes the checkpoint of these weights if they are the best; None: it was written when the evaluation
                started.
        """
        if self.pending is None:
            return
        score = self._record(self.pending)
        evaluated, self.pending = self.pending, None
        self._count(evaluated, step, score)
        if not math.isfinite(score):  # NaN and infinite returns cannot be compared
            self.progress.note(f"warning: the mean return at step {evaluated:,} is {score}; it cannot be the best one")
        elif self.best is None or score >= self.best["return_mean"]:  # of equals the later: trained longer
            self._mark(evaluated, score, save)

    def _record(self, step: int) -> float:
        """Log the result of an evaluation; return the mean return."""
        evaluation = self.player.result()
        self.progress.know(evaluated=evaluation.return_mean)
        lengths = sum(evaluation.lengths) / len(evaluation.lengths)
        metrics = {"return": evaluation.return_mean, "return_std": evaluation.return_std, "length": lengths}
        self.log.log(step, {f"evaluation/{name}": value for name, value in metrics.items()})
        return evaluation.return_mean

    def _mark(self, evaluated: int, score: float, save: Callable[[], None] | None) -> None:
        """Mark the best checkpoint."""
        before, name = self.best, checkpoint_name(evaluated)
        self.best = {"checkpoint": name, "return_mean": score}
        if save is not None:
            save()  # its manifest names the best checkpoint
        elif not (self.checkpoints.directory / name).is_dir():
            self.best = before
            self.progress.note(f"warning: {name}, of the best evaluation so far, is not there any more")
            return
        self.checkpoints.mark_best(self.best)

    def _count(self, evaluated: int, step: int, score: float) -> None:
        """Count the evaluations in a row that have reached the target of early stopping."""
        if self.early_stopping is None:
            return
        self.reached = self.reached + 1 if score >= self.early_stopping.target else 0  # NaN does not reach it
        self.log.log(evaluated, {"evaluation/reached": self.reached})
        if self.stopped_early:
            self.progress.note(
                f"stopping early at step {step}: {self.reached} evaluations in a row reached a return of "
                f"{self.early_stopping.target:g}"
            )

    def state_dict(self, step: int) -> dict[str, Any]:
        """Return the entries of a checkpoint at a step."""
        early_stopping = self.early_stopping
        return {
            "best": self.best,
            "early_stopping": None
            if early_stopping is None
            else {"target": early_stopping.target, "reached": self.reached},
            "evaluation": None
            if self.pending is None  # at its own step, the checkpoint's networks are the weights
            else {"step": self.pending, "weights": None if self.pending == step else self.player.weights()},
        }

    def load(self, saved: Mapping[str, Any], step: int) -> None:
        """Continue from the state of a checkpoint, after its networks are loaded; restart its pending evaluation.

        Args:
            saved: the whole state of the checkpoint.
            step: step of the checkpoint.
        """
        fields = Fields(saved, "state")
        self.best = fields.take("best")
        if self.best is not None:
            best = fields.fields("best")
            best.text("checkpoint")
            best.number("return_mean")
        self.reached = reached_in(saved, self.early_stopping)
        if saved.get("evaluation") is not None:  # absent in checkpoints of version 0.1
            evaluation = fields.fields("evaluation")
            self.pending = evaluation.integer("step", most=step)
            weights = None if self.pending == step else evaluation.fields("weights").value
            self.player.begin(weights)


def reached_in(saved: Mapping[str, Any], early_stopping: EarlyStopping | None) -> int:
    """Return the number of evaluations in a row that had reached the target, from the state of a checkpoint.

    Args:
        saved: the whole state of the checkpoint; older releases store no count.
        early_stopping: rule of the continued run; with another target than before, the count restarts at 0.
    """
    if early_stopping is None or saved.get("early_stopping") is None:
        return 0
    count = Fields(saved, "state").fields("early_stopping")
    return count.integer("reached") if count.number("target") == early_stopping.target else 0
