"""Periodic evaluations of a run: their rows, the best weights so far, and when the run stops early.

Results count in an order that depends on no speed. That of an evaluation in this process counts at
once; that of one during which training goes on counts when the next evaluation is due, before that one begins, or at
the end. The weights under evaluation get a checkpoint, which becomes the best one or is removed like any other.
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
    """Return that so many evaluations in a row must reach for the run to end before ``total_steps``."""

    target: float
    evaluations: int


class Player(Protocol):
    """Plays the evaluation episodes, with one set of weights after the other."""

    in_background: bool
    """True if training goes on meanwhile."""

    def begin(self, weights: Mapping[str, Tensor] | None = None) -> None:
        """Begin to play with these weights; None: with the present ones of the network."""

    def result(self) -> Evaluation:
        """Return the result of the evaluation that was begun; wait for it."""

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights that are being evaluated."""

    def look(self) -> None:
        """Raise the error of an evaluation that has failed, without waiting for one."""


class PlayerHere:
    """Plays in this process, at once.

    Args:
        play: plays the evaluation episodes with the present weights.
        with_weights: gives the network other weights for the time of a ``with`` block.
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
        """Play with these weights, or with the present ones of the network."""
        self._weights = dict(weights or {})
        with nullcontext() if weights is None else self._with_weights(weights):
            self._result = self._play()

    def result(self) -> Evaluation:
        """Return the result."""
        if self._result is None:
            raise RuntimeError("no evaluation was begun; call begin() first")
        return self._result

    def weights(self) -> dict[str, Tensor]:
        """Return the weights that ``begin`` was given."""
        return self._weights

    def look(self) -> None:
        """Do nothing: ``begin`` raises the errors."""


class Evaluations:
    """The evaluations of a run. Their state is a part of every checkpoint.

    Args:
        player: plays the episodes.
        checkpoints: of the run.
        log: where metrics go.
        progress: what a person sees.
        early_stopping: when the run ends before ``total_steps``; None: never.
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
        self.reached = 0  # evaluations in a row that have reached its return
        self.best: dict[str, Any] | None = None  # name and mean return of the best checkpoint
        self.pending: int | None = None  # step of the weights whose result does not count yet

    @property
    def stopped_early(self) -> bool:
        """Return whether enough evaluations in a row have reached the return of early stopping."""
        return self.early_stopping is not None and self.reached >= self.early_stopping.evaluations

    def look(self) -> None:
        """Raise the error of an evaluation that has failed while training went on."""
        self.player.look()

    def measure(self, step: int) -> None:
        """Play the evaluation episodes and log their result, without a part in the best weights or early stopping.

        Args:
            step: of the present weights.
        """
        self.player.begin()
        self._record(step)

    def evaluate(self, step: int, save: Callable[[], None], *, is_last: bool) -> None:
        """Evaluate the present weights; first let the result count that was waited for.

        Args:
            step: of the present weights.
            save: writes a checkpoint of the whole loop.
            is_last: whether nothing is learned after it: the result is waited for.
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
        """Wait for the evaluation that does not count yet, if there is one, and let it count.

        Args:
            step: of the run.
            save: writes the checkpoint of these weights if they are the best; None: it was written when the evaluation
                began.
        """
        if self.pending is None:
            return
        score = self._record(self.pending)
        evaluated, self.pending = self.pending, None
        self._count(evaluated, step, score)
        if not math.isfinite(score):  # a NaN or an infinite return does not say which weights are better
            self.progress.note(f"warning: the mean return at step {evaluated:,} is {score}; it cannot be the best one")
        elif self.best is None or score >= self.best["return_mean"]:  # of equals the later, which has learned longer
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
        """Name the best checkpoint."""
        before, name = self.best, checkpoint_name(evaluated)
        self.best = {"checkpoint": name, "return_mean": score}
        if save is not None:
            save()  # its manifest names it
        elif not (self.checkpoints.directory / name).is_dir():
            self.best = before
            self.progress.note(f"warning: {name}, of the best evaluation so far, is not there any more")
            return
        self.checkpoints.mark_best(self.best)

    def _count(self, evaluated: int, step: int, score: float) -> None:
        """Count the evaluations in a row that have reached the return of early stopping."""
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
            if self.pending is None  # at the step of a checkpoint its networks are those under evaluation
            else {"step": self.pending, "weights": None if self.pending == step else self.player.weights()},
        }

    def load(self, saved: Mapping[str, Any], step: int) -> None:
        """Continue from the state of a checkpoint, its networks loaded; begin the evaluation in flight once more.

        Args:
            saved: the whole state of the checkpoint.
            step: of the checkpoint.
        """
        fields = Fields(saved, "state")
        self.best = fields.take("best")
        if self.best is not None:
            best = fields.fields("best")
            best.text("checkpoint")
            best.number("return_mean")
        self.reached = reached_in(saved, self.early_stopping)
        if saved.get("evaluation") is not None:  # 0.1 wrote none
            evaluation = fields.fields("evaluation")
            self.pending = evaluation.integer("step", most=step)
            weights = None if self.pending == step else evaluation.fields("weights").value
            self.player.begin(weights)


def reached_in(saved: Mapping[str, Any], early_stopping: EarlyStopping | None) -> int:
    """Return how many evaluations in a row had reached the return, by the state of a checkpoint.

    Args:
        saved: the whole state of the checkpoint; that of older releases holds no count.
        early_stopping: of the run that continues; with another return than before, the count begins anew.
    """
    if early_stopping is None or saved.get("early_stopping") is None:
        return 0
    count = Fields(saved, "state").fields("early_stopping")
    return count.integer("reached") if count.number("target") == early_stopping.target else 0
