"""``tesserl sweep``: train seeds x variants x tasks from one file, each run in a separate process."""

import json
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from rich.console import Console

from tesserl_analysis import run_files
from tesserl_configs import ConfigError, dump_config
from tesserl_configs.launchers import Launcher, LocalLauncher
from tesserl_configs.sweep import Sweep, SweepRun
from tesserl_environments.main_guard import refuse_to_run_again
from tesserl_storage.locks import locked
from tesserl_storage.whole_files import write_json, write_text
from tesserl_trainer.signals import Stopped
from tesserl_trainer.sweep.directory import (
    changes_of,
    expected_runs,
    refuse_files,
    refuse_others,
    refuse_running,
    state_of,
    stored_config,
)
from tesserl_trainer.sweep.jobs import Ended, Job, SweepError
from tesserl_trainer.sweep.launchers import check_launcher, jobs_at_a_time, open_launcher
from tesserl_trainer.sweep.launching import run_jobs

LOCAL = LocalLauncher()
REMEDY = "wait for it, stop it, or choose another directory with --runs or --name"


def run_sweep(
    sweep: Sweep,
    runs_dir: Path,
    *,
    num_parallel: int | None,
    launcher: Launcher = LOCAL,
    stop_timeout: float = 60.0,
) -> Path:
    """Train the runs that are not finished.

    Args:
        sweep: the runs.
        runs_dir: parent of the sweep's directory.
        num_parallel: number of runs to train at once, at least 1; None: limited by the launcher, locally by the cores.
        launcher: launcher that trains the runs.
        stop_timeout: seconds in which runs must write a checkpoint when the sweep is stopped.

    Returns:
        The sweep's directory.

    Raises:
        ArgumentError: the launcher does not work on this machine.
        ConfigError: a stored run has another configuration, or the path of a run holds something else.
        InUseError: another process runs this sweep or trains one of its runs.
        SweepError: runs failed; the others were trained.
        SweepStopped: SIGINT, SIGTERM or SIGHUP was received; the running runs wrote checkpoints.
    """
    refuse_to_run_again()
    check_launcher(launcher)
    directory = runs_dir / sweep.name
    refuse_files(sweep, directory)
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory, doing="runs a sweep here", remedy=REMEDY, timeout=0.0):
        check_networks([run for run in sweep.runs if state_of(directory / run.path) != "finished"], directory)
        note, configs = note_on_stderr(), [run.config for run in sweep.runs]
        with open_launcher(launcher, directory, configs, num_parallel=num_parallel, on_note=note) as opened:
            refuse_running(sweep, directory, opened.holds)
            refuse_others(sweep, directory)
            todo = [run for run in sweep.runs if state_of(directory / run.path) != "finished"]
            order = {"tasks": sweep.tasks, "variants": sweep.variants, "runs": expected_runs(sweep, directory)}
            write_json(directory / run_files.ORDER, order)
            report = _Report(len(sweep.runs), len(sweep.runs) - len(todo), note)
            jobs = iter([job_of(run, directory) for run in todo])
            stopped = run_jobs(
                partial(next, jobs, None),
                opened,
                num_parallel=jobs_at_a_time(launcher, num_parallel, configs),
                on_end=report.ended,
                on_note=note,
                stop_timeout=stop_timeout,
            )
    if stopped is not None:
        raise SweepStopped(stopped, directory, report.num_finished, len(sweep.runs), report.failed)
    if report.failed:
        raise SweepError(
            f"{len(report.failed)} of {len(sweep.runs)} runs failed; the others are trained. The same command tries "
            "them again from their last checkpoints:\n" + "\n".join(map(failure_of, report.failed))
        )
    return directory


def plan_sweep(sweep: Sweep, runs_dir: Path) -> list[str]:
    """Check every unfinished run without starting any; return the state of each run."""
    directory = runs_dir / sweep.name
    refuse_files(sweep, directory)
    refuse_others(sweep, directory)
    states = [state_of(directory / run.path) for run in sweep.runs]
    check_networks([run for run, state in zip(sweep.runs, states, strict=True) if state != "finished"], directory)
    return states


class SweepStopped(Stopped):
    """A signal stopped the sweep."""

    def __init__(self, signum: int, directory: Path, num_finished: int, num_runs: int, failed: Sequence[Ended]) -> None:
        before = f"\n{len(failed)} of them failed:\n" + "\n".join(map(failure_of, failed)) if failed else ""
        super().__init__(
            signum,
            f"stopped by {signal.Signals(signum).name} with {num_finished} of {num_runs} runs in {directory} finished; "
            f"the same command continues them{before}",
        )


def check_networks(runs: Iterable[SweepRun], directory: Path) -> None:
    """Build task and network of every variant on the meta device, and open its initial weights."""
    import torch  # slow to import: only after the files were validated

    from tesserl_trainer.algorithms.initial_weights import load_initial_weights
    from tesserl_trainer.algorithms.pairs import check_pairs
    from tesserl_trainer.algorithms.task import Task
    from tesserl_trainer.machine import refuse_missing

    problems = []
    for run in {run.path.parent: run for run in runs}.values():  # one run per variant: the last seed
        config = run.config
        try:
            refuse_missing(config, files=state_of(directory / run.path) == "new")
            task = Task(config)
            weights = None if state_of(directory / run.path) != "new" else config.initial_weights
            with torch.device("meta" if weights is None else "cpu"):
                network = task.network()
            if weights is not None:
                load_initial_weights(network, weights)
            check_pairs(task)
        except ValueError as error:
            problems += [f"{run.path.parent}: {line}" for line in str(error).splitlines()]
    if problems:
        raise ConfigError(*problems)


def job_of(run: SweepRun, directory: Path) -> Job:
    """Return the job of a run; store its configuration now, so that later edits of the file have no effect."""
    path, file = directory / run.path, stored_config(run, directory)
    changed = list[str]()
    if state_of(path) == "started":
        changed += [f"{key}={json.dumps(wanted)}" for key, _, wanted in changes_of(run, directory)]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, dump_config(run.config.model_copy(update={"seed": 1})))
    return Job(str(run.path), path, file, run.seed, tuple(changed), run.config.num_threads)


def note_on_stderr() -> Callable[[str], None]:
    """Return a function that prints a line on standard error and ignores a closed terminal."""
    console = Console(file=sys.stderr, highlight=False)

    def note(text: str) -> None:
        with suppress(OSError):  # if the terminal is gone, runs must still stop in order
            console.print(text, markup=False, soft_wrap=True)

    return note


class _Report:
    """Prints one line on standard error for each run that ends."""

    def __init__(self, num_runs: int, num_finished: int, note: Callable[[str], None]) -> None:
        self.num_finished, self.failed = num_finished, list[Ended]()
        self._num_runs, self.note = num_runs, note
        if num_finished:
            self.note(f"{num_finished} of {num_runs} runs are finished already")

    def ended(self, ended: Ended) -> None:
        name, seconds = ended.job.name, f"{ended.seconds:,.0f} s"
        if state_of(ended.job.directory) == "finished" and ended.code == 0:
            self.num_finished += 1
            result = json.loads((ended.job.directory / run_files.EVALUATION).read_text(encoding="utf-8"))
            mean, std = (float("nan") if result[key] is None else result[key] for key in ("return_mean", "return_std"))
            score = f"return {mean:.1f} ± {std:.1f}"
            self.note(f"[{self.num_finished}/{self._num_runs}] {name}: {score}, {seconds}")
        elif ended.stopped and ended.code not in (1, 2):  # codes 1 and 2 are errors from before the stop
            self.note(f"{name}: stopped after {seconds}")
        else:
            self.failed.append(ended)
            self.note(f"{name}: failed after {seconds}")


def failure_of(ended: Ended) -> str:
    """Return two lines: the failure of a run with its last line of output, and the path of its log."""
    lines = ended.job.log.read_text(encoding="utf-8", errors="replace").split("\n")
    said = [line for line in lines if line.strip() and "tesserl --debug" not in line]
    how = f"exit code {ended.code}" if ended.code >= 0 else f"killed by {signal.Signals(-ended.code).name}"
    return f"  {ended.job.name}: {how}: {said[-1] if said else 'no output'}\n    log: {ended.job.log}"
