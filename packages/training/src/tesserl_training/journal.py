"""The tasks of every loop besides learning: count, report, evaluate and save checkpoints when due."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

from tesserl_collectors.collector import Episode
from tesserl_collectors.interfaces import WorkerRecord
from tesserl_collectors.transfers import Download
from tesserl_environments.action_record import MAX_ACTIONS
from tesserl_ranks.group import ALONE, Ranks
from tesserl_ranks.states import state_of_all
from tesserl_storage import generators
from tesserl_storage.fields import Fields
from tesserl_training.checkpoints.checkpoint import Checkpoint
from tesserl_training.checkpoints.names import checkpoint_name
from tesserl_training.checkpoints.run_checkpoints import Checkpoints
from tesserl_training.evaluations import Evaluations
from tesserl_training.learner import Learner
from tesserl_training.logging import Averages, MetricsLog
from tesserl_training.progress import ProgressDisplay
from tesserl_training.schedule import Scheduled
from tesserl_training.stopwatch import Laps, Rate

COUNTERS = ("step", "updates", "episodes", "skipped")
"""Attributes of a journal that count from the start of a run."""


class DivergenceError(RuntimeError):
    """The loss is no longer finite."""


class Loop(Protocol):
    """Interface of a loop, as commands use it."""

    journal: "Journal"
    learner: Learner

    def run(self) -> None:
        """Train until ``total_steps``, or until ``journal.stop`` is set; write a checkpoint in both cases."""

    def load(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint."""


@dataclass
class Intervals:
    """Intervals of the journal's tasks in environment steps, frames per step, and the factor on rewards."""

    total_steps: int
    logging: int
    evaluation: int
    checkpoint: int
    frames_per_step: int = 1
    reward_factor: float = 1.0
    film: int | None = None


class Journal:
    """Counts, reports, evaluates and saves for a loop; every checkpoint includes its state.

    Args:
        intervals: intervals of its tasks.
        schedules: hyper-parameters that change with the step.
        pop_episodes: returns the training episodes that ended since the last call.
        evaluations: evaluations of the greedy policy.
        checkpoints: checkpoints of the run.
        log: receives the metrics.
        progress: shows progress to the user.
        film: films an evaluation episode at a step; None: no films.
        ranks: ranks that train together. Rank 0 evaluates, logs and saves, with the episodes and the state of all.
        workers: record of workers that may be lost; None if a lost worker ends the run.
    """

    def __init__(
        self,
        intervals: Intervals,
        schedules: Sequence[Scheduled],
        pop_episodes: Callable[[], list[Episode]],
        evaluations: Evaluations,
        checkpoints: Checkpoints,
        log: MetricsLog,
        progress: ProgressDisplay,
        film: Callable[[int], None] | None = None,
        ranks: Ranks = ALONE,
        workers: WorkerRecord | None = None,
    ) -> None:
        self.intervals, self.schedules, self.pop_episodes = intervals, schedules, pop_episodes
        self.evaluations, self.checkpoints, self.log, self.progress = evaluations, checkpoints, log, progress
        self.film, self.ranks, self.workers = film, ranks, workers
        self.step = self.updates = self.episodes = 0
        self.skipped = 0  # rounds without usable data
        self.exact = True
        self.stop = False
        self.agreed_stop = False  # agreed among ranks, because a signal reaches some ranks earlier than others
        self.averages = Averages()
        self._finite: Download | None = None  # on a GPU: whether the metrics of the previous round were finite
        self._remedy: str | None = None
        self.laps = Laps()
        self._rate = Rate()

    @property
    def running(self) -> bool:
        """Return whether there is another round."""
        stop = self.stop if self.ranks.number == 1 else self.agreed_stop
        return self.step < self.intervals.total_steps and not stop and not self.evaluations.stopped_early

    def open_log(self, *, resume_step: int | None = None, record: Mapping[str, Any] | None = None) -> None:
        """Open the log, see `MetricsLog.open`; exclude the start-up time of loggers from the rates."""
        self.log.open(resume_step=resume_step, record=record)
        self.laps = Laps()
        self._rate = Rate(self.step, self.updates)

    def begin_round(self) -> int:
        """Set all schedules to their values at the current step; return that step."""
        for schedule in self.schedules:
            schedule.apply(schedule.value(self.step))
        return self.step

    def end_round(
        self, before: int, save: Callable[[], None], metrics: Callable[[], Mapping[str, float]] = dict
    ) -> None:
        """Report, evaluate and save if due.

        Args:
            before: result of ``begin_round``.
            save: writes a checkpoint of the whole loop.
            metrics: returns metrics that the loop adds to a report.

        Raises:
            WorkerError: the evaluation process died or hangs.
            Exception: any error of the evaluation process.
        """
        self.progress.advance(self.step)
        self.evaluations.look()
        if self._due(self.intervals.logging, before):
            self._report(metrics())
        if self.film is not None and self.intervals.film is not None and self._due(self.intervals.film, before):
            self._film(self.film)  # before the checkpoint: a resume neither misses nor repeats it
        if self._due(self.intervals.evaluation, before):
            self._evaluate(save)
        if self._due(self.intervals.checkpoint, before):
            save()
        self.agreed_stop = self.ranks.some(self.stop)
        self.laps.lap("evaluate and save")

    def _due(self, interval: int, before: int) -> bool:
        """Return whether a multiple of the interval (or the end) lies in the steps since ``before``."""
        return self.step // interval > before // interval or self.step >= self.intervals.total_steps

    def require_finite(self, remedy: str) -> None:
        """Raise an error if the loss diverged.

        Raises:
            DivergenceError: a metric since the last report is not finite.
        """
        if not self.averages.finite():
            self._diverge(remedy)

    def watch_finite(self, remedy: str) -> None:
        """Raise an error if the loss diverged; on a GPU one round late, so that no round waits for the GPU.

        Reports and checkpoints check at once.

        Raises:
            DivergenceError: a metric since the last report is not finite.
        """
        finite = self.averages.are_finite()
        before, self._finite, self._remedy = self._finite, Download(finite), remedy
        checked = self._finite if finite.device.type == "cpu" else before
        if checked is not None and not bool(checked.result()):
            self._diverge(remedy)

    def _diverge(self, remedy: str) -> NoReturn:
        latest = self.checkpoints.latest()
        raise DivergenceError(
            f"the loss is not finite at step {self.step} (update {self.updates}); the last finite checkpoint is "
            f"{latest or 'none: it happened before the first one'}; {remedy} and start again"
        )

    def _report(self, own: Mapping[str, float]) -> None:
        """Log the metrics since the last report."""
        episodes = [episode for part in self.ranks.gather(self.pop_episodes()) for episode in part]
        self.episodes += len(episodes)
        means = self.averages.pop()
        if self._remedy is not None and not all(map(math.isfinite, means.values())):
            self._diverge(self._remedy)
        metrics = {f"train/{name}": value for name, value in means.items()}
        if episodes:
            learned = sum(episode.episode_return for episode in episodes) / len(episodes)
            metrics["train/return"] = learned / self.intervals.reward_factor  # unscaled, as in evaluations
            metrics["train/length"] = sum(episode.length for episode in episodes) / len(episodes)
        metrics |= {f"schedule/{schedule.name}": schedule.value(self.step) for schedule in self.schedules}
        if self.intervals.frames_per_step > 1:
            metrics["train/frames"] = self.step * self.intervals.frames_per_step
        counts = {"train/episodes": self.episodes, "train/updates": self.updates, "train/skipped": self.skipped}
        metrics |= {**counts, **own}
        if self.workers is not None:
            metrics |= self.workers.metrics()
        rates = self._rate.pop(self.step, self.updates)
        metrics |= {"time/steps_per_second": rates[0], "time/updates_per_second": rates[1]}
        self.log.log(self.step, metrics)
        self.progress.report(self.step, metrics.get("train/return"), *rates)

    def _film(self, film: Callable[[int], None]) -> None:
        """Film an episode; if that fails, training continues without the film."""

        def try_to_film() -> None:
            try:
                film(self.step)
            except OSError as error:
                self.progress.note(f"warning: no film of step {self.step:,}: {error}")

        with self._left_out():
            self.ranks.by_first(try_to_film, "filming")

    def measure(self) -> None:
        """Evaluate the current weights and log the result."""
        with self._left_out():
            self.evaluations.measure(self.step)

    def _evaluate(self, save: Callable[[], None]) -> None:
        """Evaluate the current weights; keep a checkpoint of the best."""
        with self._left_out():
            self.evaluations.evaluate(self.step, save, is_last=self.step >= self.intervals.total_steps)

    def finish(self) -> None:
        """Let a pending evaluation count, if the run was already over when it was resumed."""
        self.evaluations.settle(self.step)

    @contextmanager
    def _left_out(self) -> Iterator[None]:
        """Exclude the time of a ``with`` block from the rates."""
        began = time.perf_counter()
        yield
        self._rate.leave_out(time.perf_counter() - began)

    def save(
        self, loop_state: Callable[[], Mapping[str, Any]], segments: Callable[[], Sequence[Mapping[str, Any]]] = tuple
    ) -> Path:
        """Write a checkpoint at this step, unless an evaluation has already written it.

        Args:
            loop_state: returns the state of everything except the journal.
            segments: writes new replay segments, and returns the entries of all segments.
        """
        path, ranks = self.checkpoints.directory / checkpoint_name(self.step), self.ranks
        if not ranks.by_first(path.exists, "looking for a checkpoint"):
            if self._remedy is not None:
                self.require_finite(self._remedy)
            whole = state_of_all(ranks, {**self.state_dict(), **loop_state()}, self.step)
            stored = ranks.gather(list(segments()))
            ranks.by_first(lambda: self._write(whole, stored), "writing a checkpoint")
        self.checkpoints.prune(pending=self.evaluations.pending)
        return path

    def _write(self, state_dict: Mapping[str, Any], segments: Sequence[Sequence[Mapping[str, Any]]]) -> None:
        record, (own, *others) = self.log.record(), segments
        self.checkpoints.save(self.step, state_dict, segments=own, rank_segments=others, record=record)

    def state_dict(self) -> dict[str, Any]:
        """Return counters, running means and the states of the global random generators."""
        lost: dict[str, Any] = {} if self.workers is None else {"events": list(self.workers.events)}
        return {
            "averages": self.averages.state_dict(),
            "generators": generators.generators_state(),
            "counters": {name: getattr(self, name) for name in COUNTERS},
            "exact": self.exact and (self.workers is None or self.workers.exact),
            **lost,
            **self.evaluations.state_dict(self.step),
        }

    def load(self, saved: Mapping[str, Any], *, restored: bool) -> None:
        """Continue from a checkpoint's state; call this last: it sets the global generators and removes checkpoints.

        Args:
            saved: the whole state of the checkpoint.
            restored: whether all environments were restored exactly.
        """
        self.averages.load_state_dict(saved["averages"])
        fields = Fields(saved, "state")
        counters = fields.fields("counters")
        for name in COUNTERS:
            if name != "skipped" or name in counters.value:  # version 0.1 did not count skipped rounds
                setattr(self, name, counters.integer(name))
        exact, evaluations, ranks = fields.flag("exact"), self.evaluations, self.ranks
        restored = ranks.every(restored)
        evaluations.load(saved, self.step)
        if self.workers is not None:
            self.workers.events[:] = [dict(Fields(each, "state: events").value) for each in fields.items("events")]
        generators.set_generators_state(saved["generators"])
        removed = ranks.by_first(lambda: self.checkpoints.rewind(self.step, evaluations.best), "removing checkpoints")
        if removed:
            self.progress.note(f"continuing at step {self.step:,}; removed what came after it: {', '.join(removed)}")
        if evaluations.best is not None and self.checkpoints.best() is None:
            if self.checkpoints.keep_best:
                self.progress.note(
                    f"warning: {evaluations.best['checkpoint']}, the best checkpoint until then, is not there any "
                    "more; the best one is sought from here on"
                )
            evaluations.best = None
        self.exact = exact and restored
        if not restored:
            self.progress.note(
                "warning: the environments could not be put back to where they were (a state that its seed and "
                f"actions do not give, or an episode of more than {MAX_ACTIONS:,} steps); they are reset, and this run "
                'is no longer exactly the uninterrupted one (state.json says "exact": false)'
            )
        self._rate = Rate(self.step, self.updates)
