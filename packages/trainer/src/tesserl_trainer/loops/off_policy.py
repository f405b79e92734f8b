"""Learning from replayed transitions: act, store, learn from random batches, follow with a target network.

repeat until ``total_steps``:
    collect a few steps with the exploring policy
    turn them into n-step transitions and store them
    for every ``update_interval`` environment steps: draw a batch, one gradient step, one target update
    log, evaluate and checkpoint when their interval has passed
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.optim import Optimizer

from tesserl_iqn.replay import NStepWindow
from tesserl_trainer.run import resumable, state
from tesserl_trainer.run.checkpoint import Checkpoint, Checkpoints, checkpoint_name
from tesserl_trainer.run.collect import Collector
from tesserl_trainer.run.evaluate import Evaluation
from tesserl_trainer.run.logging import Averages, MetricsLog
from tesserl_trainer.run.progress import ProgressDisplay
from tesserl_trainer.run.replay import Replay
from tesserl_trainer.run.schedule import Scheduled


class DivergenceError(RuntimeError):
    """The loss is not finite any more."""


@dataclass
class Learner:
    """What one gradient step needs.

    Args:
        loss: module from a batch to a TensorDict with ``loss``; writes ``td_error`` into the batch.
        forward: the loss, or its compiled form.
        parameters: of the online network, those that learn.
        optimizer: over these parameters.
        update_target: moves the target network, called once per update.
        max_grad_norm: global norm at which gradients are clipped; ``None`` leaves them.
    """

    loss: nn.Module
    forward: Callable[[TensorDictBase], TensorDictBase]
    parameters: list[nn.Parameter]
    optimizer: Optimizer
    update_target: Callable[[int], None]
    max_grad_norm: float | None

    def update(self, batch: TensorDictBase, updates: int) -> dict[str, Tensor]:
        """One gradient step on a batch; ``updates`` counts it. Returns metrics as scalar tensors."""
        loss = self.forward(batch)["loss"]
        for parameter in self.parameters:  # optimizer.zero_grad() costs as much as a layer
            parameter.grad = None
        loss.backward()
        metrics = {"loss": loss.detach(), "td_error": batch["td_error"].mean()}
        if self.max_grad_norm is not None:
            metrics["gradient_norm"] = nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm, foreach=True)
        self.optimizer.step()
        self.update_target(updates)
        return metrics


@dataclass
class Intervals:
    """When things are due, in environment steps (``batch_size`` in transitions)."""

    total_steps: int
    warmup_steps: int
    update_interval: int
    collect_steps: int
    batch_size: int
    logging: int
    evaluation: int
    checkpoint: int


class OffPolicyLoop:
    """The loop with everything that it drives. Its state, and that of its parts, is what a checkpoint holds."""

    def __init__(
        self,
        learner: Learner,
        collector: Collector,
        window: NStepWindow,
        replay: Replay,
        schedules: Sequence[Scheduled],
        intervals: Intervals,
        evaluate: Callable[[], Evaluation],
        checkpoints: Checkpoints,
        log: MetricsLog,
        progress: ProgressDisplay,
    ) -> None:
        self.learner, self.collector, self.window, self.replay = learner, collector, window, replay
        self.schedules, self.intervals, self.evaluate = schedules, intervals, evaluate
        self.checkpoints, self.log, self.progress = checkpoints, log, progress
        self.step = self.updates = self.episodes = 0
        self.best: dict[str, Any] | None = None  # name and mean return of the best checkpoint
        self.exact = True
        self.stop = False
        self._owed = 0  # environment steps since the warm-up that have not been paid for with updates
        self._averages = Averages()
        self._clock = (time.perf_counter(), 0, 0)

    def run(self) -> None:
        """Trains until ``total_steps``, or until ``stop`` is set; leaves a checkpoint in both cases.

        Raises:
            DivergenceError: the loss became NaN or infinite.
        """
        self._clock = (time.perf_counter(), self.step, self.updates)
        while self.step < self.intervals.total_steps and not self.stop:
            before = self.step
            for schedule in self.schedules:
                schedule.apply(schedule.value(self.step))
            self.collector.set_weights(None, self.updates)
            batch = self.collector.collect(self.intervals.collect_steps)
            self.step += batch.numel()
            self.replay.extend(self.window.extend(batch))
            self._learn(before)
            self.progress.advance(self.step)
            if self._due(self.intervals.logging, before):
                self._report()
            if self._due(self.intervals.evaluation, before):
                self._evaluate()
            if self._due(self.intervals.checkpoint, before):
                self.save()
        self.save()

    def _due(self, interval: int, before: int) -> bool:
        """Whether a multiple of the interval (or the end) lies in the steps since ``before``."""
        return self.step // interval > before // interval or self.step >= self.intervals.total_steps

    def _learn(self, before: int) -> None:
        """All updates that the collected steps pay for."""
        if self.step < self.intervals.warmup_steps or not len(self.replay):
            return
        self._owed += self.step - before
        number, self._owed = divmod(self._owed, self.intervals.update_interval)
        for batch in self.replay.batches(number, self.intervals.batch_size):
            self.updates += 1
            self._averages.add(self.learner.update(batch, self.updates))
            self.replay.update_priority(batch)
        if number and not self._averages.finite():
            latest = self.checkpoints.latest()
            raise DivergenceError(
                f"the loss is not finite at step {self.step} (update {self.updates}); the last finite checkpoint is "
                f"{latest or 'none: it happened before the first one'}; lower optimizer.learning_rate or "
                "iqn.max_grad_norm and start again"
            )

    def _report(self) -> None:
        """Logs what happened since the last report."""
        episodes = self.collector.pop_episodes()
        self.episodes += len(episodes)
        metrics = {f"train/{name}": value for name, value in self._averages.pop().items()}
        if episodes:
            metrics["train/return"] = sum(episode.episode_return for episode in episodes) / len(episodes)
            metrics["train/length"] = sum(episode.length for episode in episodes) / len(episodes)
        metrics |= {f"schedule/{schedule.name}": schedule.value(self.step) for schedule in self.schedules}
        metrics |= {"train/episodes": self.episodes, "train/updates": self.updates, "replay/size": len(self.replay)}
        now, (then, step, updates) = time.perf_counter(), self._clock
        seconds = max(now - then, 1e-9)
        rates = (self.step - step) / seconds, (self.updates - updates) / seconds
        metrics |= {"time/steps_per_second": rates[0], "time/updates_per_second": rates[1]}
        self.log.log(self.step, metrics)
        self.progress.report(self.step, metrics.get("train/return"), *rates)
        self._clock = (time.perf_counter(), self.step, self.updates)

    def _evaluate(self) -> None:
        """Plays the evaluation episodes; the best weights so far get a checkpoint of their own."""
        began = time.perf_counter()
        evaluation = self.evaluate()
        score = evaluation.return_mean
        lengths = sum(evaluation.lengths) / len(evaluation.lengths)
        self.log.log(
            self.step,
            {"evaluation/return": score, "evaluation/return_std": evaluation.return_std, "evaluation/length": lengths},
        )
        if self.best is None or score >= self.best["return_mean"]:  # of equals the later, which has learned longer
            self.best = {"checkpoint": checkpoint_name(self.step), "return_mean": score}
            self.save()
            self.checkpoints.mark_best(self.best)
        then, step, updates = self._clock
        self._clock = (then + time.perf_counter() - began, step, updates)

    def save(self) -> Path:
        """Writes a checkpoint of everything."""
        path = self.checkpoints.directory / checkpoint_name(self.step)
        if not path.exists():  # an evaluation at this step may have written it: the same state
            self.checkpoints.save(self.step, self.state_dict(), segments=self.replay.write())
        self.checkpoints.prune()
        self.replay.prune(self.checkpoints.newest())
        return path

    def state_dict(self) -> dict[str, Any]:
        """Everything that a continued run needs, the stored transitions excepted."""
        return {
            "networks": self.learner.loss.state_dict(),
            "optimizer": self.learner.optimizer.state_dict(),
            "collector": self.collector.state_dict(),
            "environments": resumable.snapshot(self.collector.environments),
            "window": self.window.state_dict(),
            "replay": self.replay.state_dict(),
            "averages": self._averages.state_dict(),
            "generators": state.generators_state(),
            "counters": {
                "step": self.step,
                "updates": self.updates,
                "episodes": self.episodes,
                "owed": self._owed,
            },
            "best": self.best,
            "exact": self.exact,
        }

    def load(self, checkpoint: Checkpoint) -> None:
        """Continues from a checkpoint.

        Raises:
            CheckpointError: its replay is missing or damaged.
        """
        saved = checkpoint.state
        self.replay.load(saved["replay"], checkpoint.manifest["replay"])
        self.learner.loss.load_state_dict(saved["networks"])
        self.learner.optimizer.load_state_dict(saved["optimizer"])
        self.window.load_state_dict(saved["window"])
        self._averages.load_state_dict(saved["averages"])
        counters = saved["counters"]
        self.step, self.updates, self.episodes = counters["step"], counters["updates"], counters["episodes"]
        self._owed, self.best = counters["owed"], saved["best"]
        self.checkpoints.rewind(self.step, self.best)
        if self.checkpoints.best() is None:
            self.best = None
        restored = resumable.restore(self.collector.environments, saved["environments"])
        self.exact = saved["exact"] and restored
        self.collector.load_state_dict(saved["collector"], restart=not restored)
        if not restored:
            self.window.clear()
            self.progress.note(
                "warning: the environments could not be put back to where they were; they are reset, and this run is "
                'no longer exactly the uninterrupted one (state.json says "exact": false)'
            )
        state.set_generators_state(saved["generators"])
