"""``tesserl search``: train trials of one search space; each trial is an ordinary run in a separate process."""

import json
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from tesserl_analysis import run_files
from tesserl_analysis.record import read_metrics, series
from tesserl_configs import ConfigError
from tesserl_configs.launchers import Launcher
from tesserl_configs.search import Search
from tesserl_configs.sweep import Sweep, SweepRun
from tesserl_environments.main_guard import refuse_to_run_again
from tesserl_storage.locks import locked
from tesserl_trainer.search.results import shown, write_results
from tesserl_trainer.search.trials import Trial, Trials
from tesserl_trainer.signals import Stopped
from tesserl_trainer.sweep.directory import refuse_files, refuse_others, refuse_running, state_of
from tesserl_trainer.sweep.jobs import Ended, Job, SweepError
from tesserl_trainer.sweep.launchers import check_launcher, open_launcher
from tesserl_trainer.sweep.launching import run_jobs
from tesserl_trainer.sweep.sweep import LOCAL, REMEDY, check_networks, failure_of, job_of, note_on_stderr
from tesserl_training.metric_names import EVALUATION

HOPELESS = 5
"""Number of failed trials that ends a search if no trial has a value."""

LOOK = 1.0
"""Seconds between two reads of a run's evaluations."""


def run_search(
    search: Search, runs_dir: Path, *, num_parallel: int, launcher: Launcher = LOCAL, stop_timeout: float = 60.0
) -> Path:
    """Train trials until there are enough, then write and print the results.

    Args:
        search: the search space and the number of trials.
        runs_dir: parent of the search's directory.
        num_parallel: number of trials to train at once, at least 1.
        launcher: launcher that trains the trials.
        stop_timeout: seconds in which stopped runs must write a checkpoint.

    Returns:
        The file with the best configuration.

    Raises:
        ArgumentError: Optuna is not installed, or the launcher does not work on this machine.
        ConfigError: the directory holds another search, or the tasks and networks of the space cannot be built.
        InUseError: another process runs this search or trains one of its runs.
        SearchStopped: SIGINT, SIGTERM or SIGHUP was received; calling this again continues the search.
        SweepError: no trial has a value.
    """
    refuse_to_run_again()
    check_launcher(launcher)
    directory = runs_dir / search.name
    corners = list(search.corners())
    ends = [*runs_of(search, corners[0], "first-corner")[:1], *runs_of(search, corners[-1], "last-corner")[:1]]
    refuse_files(as_sweep(search, ends), directory)
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory, doing="searches here", remedy=REMEDY, timeout=0.0):
        trials = Trials(search, directory)
        sweep = as_sweep(search, [run for trial in trials.known() for run in runs_of(search, trial.values, trial.name)])
        refuse_files(sweep, directory)
        _refuse_strangers(sweep, directory)
        check_networks(ends, directory)
        note, configs = note_on_stderr(), [run.config for run in ends]
        with open_launcher(launcher, directory, configs, num_parallel=num_parallel, on_note=note) as opened:
            refuse_running(sweep, directory, opened.holds)
            refuse_others(sweep, directory)
            running = _Running(search, directory, trials, note)
            stopped = run_jobs(
                running.next_job,
                opened,
                num_parallel=num_parallel,
                on_end=running.ended,
                on_note=running.note,
                should_stop=running.should_stop,
                stop_timeout=stop_timeout,
            )
        if stopped is not None:
            raise SearchStopped(stopped, directory, trials.num_finished(), search.config.trials)
        if not trials.has_value():
            raise SweepError(
                f"{trials.num_finished()} trials and none has a value; mend the cause and start again in another "
                f"directory:\n{running.failure}"
            )
        return write_results(search, trials, directory, running.note)


class SearchStopped(Stopped):
    """A signal stopped the search."""

    def __init__(self, signum: int, directory: Path, num_finished: int, num_trials: int) -> None:
        super().__init__(
            signum,
            f"stopped by {signal.Signals(signum).name} with {num_finished} of {num_trials} trials in {directory} "
            "finished; the same command continues",
        )


def runs_of(search: Search, values: Mapping[str, object], name: str) -> list[SweepRun]:
    """Return the runs of a trial, one per seed, as the runs of a sweep whose variant is the trial."""
    config = search.trial(values, name)
    return [SweepRun(None, name, seed, config.model_copy(update={"seed": seed})) for seed in search.config.seeds]


def as_sweep(search: Search, runs: Sequence[SweepRun]) -> Sweep:
    """Return runs as a sweep."""
    return Sweep(search.name, tuple(runs), (), tuple(run.variant for run in runs), tuple(run.path for run in runs))


def _refuse_strangers(sweep: Sweep, directory: Path) -> None:
    """Refuse trial directories that are not in the journal: a new trial would start in one of them."""
    strangers = {path.name for path in directory.glob("trial-*")} - set(sweep.variants)
    if strangers:
        raise ConfigError(
            f"{directory / min(strangers)}: is a trial that the journal of this search does not know; move it away, or "
            "give this search another directory with --name or --runs"
        )


@dataclass(frozen=True)
class _Started:
    """A trial whose run is training, and the steps of its earlier runs."""

    trial: Trial
    before: int


class _Running:
    """Assigns trials to processes, and records the results of the processes in the trials."""

    def __init__(self, search: Search, directory: Path, trials: Trials, note: Callable[[str], None]) -> None:
        self.search, self.directory, self.trials, self.note = search, directory, trials, note
        self.failure = ""
        self._waiting = deque(trials.unfinished())
        self._started: dict[str, _Started] = {}
        self._hopeless: set[int] = set()
        self._looked: dict[str, float] = {}
        if done := trials.num_finished():
            note(f"{done} of {search.config.trials} trials are finished already")

    def next_job(self) -> Job | None:
        """Return the next run; the runs of a trial train one after the other."""
        while (trial := self._waiting.popleft() if self._waiting else self._another()) is not None:
            try:
                runs = runs_of(self.search, trial.values, trial.name)
            except ConfigError as error:
                self._failed(trial, f"  {trial.name}: {error}")
                continue
            done = [run for run in runs if state_of(self.directory / run.path) == "finished"]
            if len(done) == len(runs):
                self._finished(trial, [self.directory / run.path for run in runs])
                continue
            run = next(run for run in runs if run not in done)
            started = _Started(trial, runs.index(run) * run.config.total_steps)
            if self._is_hopeless(started, self.directory / run.path):  # killed before it recorded this
                self._stopped(trial)
                continue
            job = job_of(run, self.directory)
            self._started[job.name] = started
            return job
        return None

    def _another(self) -> Trial | None:
        """Return a new trial; None if there are enough trials, or too many failures without a value."""
        if self.trials.num_finished() >= HOPELESS and not self.trials.has_value():
            return None
        return self.trials.ask()

    def should_stop(self, job: Job) -> bool:
        """Report the evaluations of a run; return whether the median rule prunes its trial."""
        if (now := time.monotonic()) - self._looked.get(job.name, 0.0) < LOOK:
            return False
        self._looked[job.name] = now
        return self._is_hopeless(self._started[job.name], job.directory)

    def _is_hopeless(self, started: _Started, run_dir: Path) -> bool:
        """Report the evaluations of a run; return whether its trial is to be pruned."""
        number = started.trial.number
        if self._report(started, run_dir) and self.trials.is_hopeless(number):
            self._hopeless.add(number)
        return number in self._hopeless

    def _report(self, started: _Started, run_dir: Path) -> bool:
        """Report the new evaluations of a run; return whether it has written metrics."""
        if not (run_dir / run_files.METRICS).is_file():
            return False
        found = zip(*series(read_metrics(run_dir / run_files.METRICS), EVALUATION), strict=True)
        self.trials.report(started.trial.number, ((started.before + step, value) for step, value in found))
        return True

    def ended(self, ended: Ended) -> None:
        """Record the outcome of a run."""
        started = self._started[ended.job.name]
        trial = started.trial
        if state_of(ended.job.directory) == "finished" and (ended.code == 0 or ended.stopped):  # before the stop
            self._report(started, ended.job.directory)  # other trials are compared with its full curve
            self._hopeless.discard(trial.number)
            self._waiting.appendleft(trial)
        elif trial.number in self._hopeless:
            self._stopped(trial)
        elif not ended.stopped:  # a run that is stopped during its start may exit with 1
            self._failed(trial, failure_of(ended))

    def _finished(self, trial: Trial, run_dirs: Sequence[Path]) -> None:
        value = fmean(value_of(run_dir, self.search.config.objective) for run_dir in run_dirs)
        self.trials.finish(trial.number, value)
        self.note(f"{self._count()} {trial.name}: {value:.1f}; {shown(trial.values)}")

    def _stopped(self, trial: Trial) -> None:
        self.trials.stop(trial.number)
        self.note(f"{self._count()} {trial.name}: below the median, stopped; {shown(trial.values)}")

    def _failed(self, trial: Trial, failure: str) -> None:
        self.failure = failure
        self.trials.fail(trial.number)
        self.note(f"{self._count()} {trial.name}: failed; {shown(trial.values)}\n{failure}")

    def _count(self) -> str:
        return f"[{self.trials.num_finished()}/{self.search.config.trials}]"


def value_of(run_dir: Path, objective: str) -> float:
    """Return the objective value of a finished run; NaN if its returns are not finite."""
    if objective == "final":
        found = json.loads((run_dir / run_files.EVALUATION).read_text(encoding="utf-8"))["return_mean"]
        return float("nan") if found is None else float(found)
    _, returns = series(read_metrics(run_dir / run_files.METRICS), EVALUATION)
    return sum(returns) / len(returns) if returns else float("nan")
