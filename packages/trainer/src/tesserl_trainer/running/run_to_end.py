"""Run a loop to its end in a locked directory: train, save, evaluate."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tesserl_analysis import plot_curve, read_metrics, run_files, series
from tesserl_collectors.process import prepare_process
from tesserl_configs import ConfigError, RunConfig
from tesserl_environments import TaskError, WorkerError, derived_seed
from tesserl_ranks.failures import RankError
from tesserl_ranks.group import Ranks
from tesserl_ranks.joining import launched
from tesserl_ranks.states import state_of_rank
from tesserl_storage.errors import StorageError
from tesserl_storage.generators import seed_generators
from tesserl_storage.sealed_json import write_sealed
from tesserl_trainer.algorithms.run import Run
from tesserl_trainer.algorithms.sharing import part_of
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.machine import naming_memory
from tesserl_trainer.running.evaluate import evaluate
from tesserl_trainer.running.restarts import continued_by
from tesserl_trainer.running.run_directory import begin_run, change_run
from tesserl_trainer.signals import StopNow, Stopped, on_signals
from tesserl_trainer.usage import command_line
from tesserl_training.checkpoints.checkpoint import Checkpoint, replay_entries
from tesserl_training.checkpoints.run_checkpoints import Checkpoints
from tesserl_training.checkpoints.run_identity import read_identity
from tesserl_training.journal import Journal, Loop
from tesserl_training.progress import ProgressDisplay


class Interrupted(Stopped):
    """A signal stopped the run; its checkpoint is written."""

    def __init__(self, signum: int, run_dir: Path, number: int = 1) -> None:
        start = ("torchrun", f"--nproc-per-node={number}", "-m", "tesserl_trainer") if number > 1 else ("tesserl",)
        command = command_line(*start, "train", "--resume", run_dir)
        super().__init__(signum, f"stopped by {signal.Signals(signum).name}; continue with: {command}")


Build = Callable[[Task, Run], Loop]
"""Builds a loop at step 0."""


def run_to_end(
    config: RunConfig, run_dir: Path, checkpoint: Checkpoint | None, build: Build, total_steps: int, ranks: Ranks
) -> Path:
    """Train in a locked directory."""
    prepare_process(config.num_threads, config.float32_matmul)
    seed_generators(config.seed)
    with naming_memory(config), ExitStack() as stack:
        progress = ProgressDisplay(total_steps, checkpoint.step if checkpoint else 0, quiet=ranks.rank > 0)
        stack.enter_context(progress)
        loop = build(_task_of(config, ranks), Run(run_dir, progress, stack, ranks))
        ranks.meet("starting environments")
        if checkpoint is None:
            _align(loop, ranks, config.seed)
        else:
            _restore(loop, checkpoint, ranks)
        if ranks.rank == 0:
            _open_record(loop, config, run_dir, checkpoint, progress)
        with _stopped_by_signals(loop) as received:
            loop.run()
            if not ranks.largest(received[0] if received else 0):
                loop.journal.finish()
        if signum := int(ranks.largest(received[0] if received else 0)):
            raise Interrupted(signum, run_dir, ranks.number)
        ranks.by_first(lambda: _finish(loop.journal, config, run_dir, progress), "evaluating the result")
    return run_dir


def _task_of(config: RunConfig, ranks: Ranks) -> Task:
    """Return the task of one rank."""
    launch = launched()
    part = part_of(config, ranks, 0 if launch is None else launch.local_rank)
    return Task(part, first_environment=ranks.rank * part.environment.num_envs)


def _align(loop: Loop, ranks: Ranks, seed: int) -> None:
    """Copy the weights of rank 0 to all ranks, and seed each rank's generators differently."""
    if ranks.number == 1:
        return
    ranks.copy_first(loop.learner.loss.state_dict().values())
    ranks.seed(derived_seed(seed, key=(3,)))
    if ranks.rank:
        seed_generators(derived_seed(seed, key=(2, ranks.rank)))


def _open_record(
    loop: Loop, config: RunConfig, run_dir: Path, checkpoint: Checkpoint | None, progress: ProgressDisplay
) -> None:
    """Write the configuration and open the metrics of a new or a continued run."""
    if checkpoint is None:
        begin_run(run_dir, config)
        loop.journal.open_log()
    else:
        change_run(run_dir, config)
        progress.know(trained=_last_return(run_dir))
        loop.journal.open_log(resume_step=checkpoint.step, record=checkpoint.manifest["record"])
    if loop.journal.running:  # the earlier evaluation is outdated
        (run_dir / run_files.EVALUATION).unlink(missing_ok=True)


def _finish(journal: Journal, config: RunConfig, run_dir: Path, progress: ProgressDisplay) -> None:
    """Evaluate the trained weights of a run and draw its learning curve."""
    if journal.laps.seconds:  # no time was spent if the run was over before the resume
        progress.note(f"where the time went: {journal.laps}")
    progress.note(f"trained {journal.step:,} steps; evaluating {config.evaluation.final_episodes} episodes")
    try:
        result = _final_evaluation(config, run_dir, progress)
    except (KeyboardInterrupt, StopNow) as stop:
        raise Interrupted(getattr(stop, "signum", signal.SIGINT), run_dir) from stop
    try:
        plot_curve(run_dir, title=f"{config.name} on {config.environment.id}, seed {config.seed}")
    except ModuleNotFoundError as error:  # the picture is optional
        progress.note(f"no curve.png: {error}")
    progress.note(
        f"return {result['return_mean']:.1f} ± {result['return_std']:.1f} over {result['episodes']} episodes "
        f"({result['checkpoint']}; last weights {result['last_return_mean']:.1f}): {run_dir}"
    )


def _last_return(run_dir: Path) -> float | None:
    """Return the last training return in the record of a run."""
    path = run_dir / run_files.METRICS
    returns = series(read_metrics(path), "train/return")[1] if path.is_file() else []
    return returns[-1] if returns else None


def _restore(loop: Loop, checkpoint: Checkpoint, ranks: Ranks) -> None:
    """Continue from a checkpoint."""
    try:
        state = state_of_rank(
            ranks, checkpoint.state, checkpoint.path, remedy=partial(continued_by, checkpoint.path.parents[1])
        )
        manifest = {**checkpoint.manifest, "replay": replay_entries(checkpoint.manifest, ranks.rank)}
        loop.load(replace(checkpoint, state=state, manifest=manifest))
    except (StorageError, ConfigError, RankError, TaskError, WorkerError):
        raise
    except Exception as error:  # each part of the nested state can fail with a different error
        raise StorageError(
            f"{checkpoint.path}: its state is not that of this run ({type(error).__name__}: {error}); use another one"
        ) from error


def _final_evaluation(config: RunConfig, run_dir: Path, progress: ProgressDisplay) -> dict[str, Any]:
    """Evaluate the best and the last weights on unused seeds and write ``evaluation.json``."""
    episodes = config.evaluation.final_episodes

    def of(checkpoint: str) -> dict[str, Any]:
        shown = progress.evaluation(f"{checkpoint} weights", episodes)
        return evaluate(run_dir, episodes=episodes, checkpoint=checkpoint, on_episode=shown)

    last, best = of("latest"), Checkpoints(run_dir).best()
    result = last if best is None or best.name == last["checkpoint"] else of("best")
    result = {**result, "last_return_mean": last["return_mean"]}
    identity = read_identity(run_dir)
    write_sealed(run_dir / run_files.EVALUATION, {**result, "run_id": identity.run_id if identity else None})
    return result


@contextmanager
def _stopped_by_signals(loop: Loop) -> Iterator[list[int]]:
    """Stop in order at the first signal, appended to the yielded list; the second signal acts at once."""
    received: list[int] = []

    def stop(signum: int) -> None:
        received.append(signum)
        loop.journal.stop = True
        give_back()

    with on_signals(stop) as give_back:
        yield received
