"""``tesserl train``: from one YAML file to a run directory."""

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tesserl_analysis import plot_curve, read_metrics, series
from tesserl_collectors.process import prepare_process
from tesserl_configs import ConfigError, RunConfig
from tesserl_configs.diff import Difference
from tesserl_environments import TaskError, WorkerError
from tesserl_environments.main_guard import refuse_to_run_again
from tesserl_environments.making import TaskMaker
from tesserl_ranks.group import RankError, Ranks
from tesserl_ranks.joining import joined, launched
from tesserl_ranks.states import state_of_rank
from tesserl_storage.errors import StorageError
from tesserl_storage.generators import seed_generators
from tesserl_storage.sealed_json import read_sealed, write_sealed
from tesserl_trainer.algorithms import builder_of
from tesserl_trainer.algorithms.environments import with_maker
from tesserl_trainer.algorithms.precision import faster_precision, is_measured, with_precision
from tesserl_trainer.algorithms.run import Run, early_stopping_of
from tesserl_trainer.algorithms.sharing import part_of
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.machine import naming_memory, refuse_missing
from tesserl_trainer.networks.bodies import MakeBody, with_body
from tesserl_trainer.running.directories import lock, new_directory
from tesserl_trainer.running.evaluate import evaluate
from tesserl_trainer.running.restarts import continued_by, earlier_run, mark_launch
from tesserl_trainer.running.run_directory import CHANGEABLE, begin_run, change_run, changes_from, run_config
from tesserl_trainer.signals import StopNow, Stopped, on_signals
from tesserl_trainer.usage import command_line
from tesserl_training.checkpoints.checkpoint import Checkpoint, replay_entries
from tesserl_training.checkpoints.run_checkpoints import Checkpoints
from tesserl_training.checkpoints.run_identity import read_identity
from tesserl_training.evaluations import reached_in
from tesserl_training.journal import Journal, Loop
from tesserl_training.logging import read_record
from tesserl_training.loops.cloning import refuse_cloned
from tesserl_training.progress import ProgressDisplay

EVALUATION, METRICS = "evaluation.json", "metrics.csv"

PLACES = ("pairs.source.path", "environment.module_path")
"""A resume can name other places of the same pairs and modules."""


class Interrupted(Stopped):
    """A signal stopped the run; its checkpoint is written.

    Args:
        signum: the signal.
        run_dir: directory of the run.
        number: of ranks that trained it.
    """

    def __init__(self, signum: int, run_dir: Path, number: int = 1) -> None:
        start = ("torchrun", f"--nproc-per-node={number}", "-m", "tesserl_trainer") if number > 1 else ("tesserl",)
        command = command_line(*start, "train", "--resume", run_dir)
        super().__init__(signum, f"stopped by {signal.Signals(signum).name}; continue with: {command}")


def train(
    config: RunConfig,
    *,
    run_dir: str | Path | None = None,
    resume: bool | str = False,
    environment: TaskMaker | None = None,
    body: MakeBody | None = None,
) -> Path:
    """Trains, evaluates and draws the curve.

    Args:
        config: what to train.
        run_dir: where the run lives; by default ``runs/<name>`` below the current directory, with a number behind it
            where that is taken.
        resume: continue the run in ``run_dir`` from its latest checkpoint, or from the one of this name (what is newer
            is removed).
        environment: function that makes one environment, called with ``environment.kwargs``; ``environment.id`` is the
            name of the task then. None: the task is a registered one. Such a run is resumed from Python alone.
        body: function or class at the top level of a module, which makes a body in place of ``nn``'s encoders and
            fusion, see `build_own_body`; the run names it as ``nn.body``. None: ``nn`` as it is.

    Returns:
        The run's directory.

    Raises:
        StorageError: the checkpoint to resume from is missing or damaged; nothing has been changed.
        ConfigError: the configuration does not fit the task, or the directory is taken, or the resumed run had another
            configuration.
        InUseError: another process trains there.
        DivergenceError: the loss became NaN or infinite.
        RankError: below ``torchrun``, another rank was lost, or its weights are others.
        Interrupted: SIGINT, SIGTERM or SIGHUP; a checkpoint has been written.
        TaskError: an environment raised an error, or returned what its spaces do not allow, or NaN.
        WorkerError: a worker of an environment raised an error, died or did not answer.
    """
    if environment is not None:
        config = with_maker(config, environment)
    if body is not None:
        config = with_body(config, body)
    if not resume:
        return run_loop(config, run_dir, builder_of(config.algorithm).build_loop)
    if run_dir is None:
        raise ValueError("resume needs run_dir, the directory of the run to continue")
    return _continue(Path(run_dir), "latest" if resume is True else resume, lambda: config)


def resume_run(run_dir: Path, overrides: Sequence[str] = (), *, checkpoint: str = "latest") -> Path:
    """Continues a run with the configuration in its directory.

    Args:
        run_dir: directory of the run.
        overrides: ``key=value`` on top of the run's configuration.
        checkpoint: ``"latest"``, ``"best"``, or the name of a directory in ``checkpoints/``.

    Returns:
        ``run_dir``.

    Raises:
        Exception: see ``train``.
    """
    return _continue(run_dir, checkpoint, lambda: run_config(run_dir, overrides))


def _continue(run_dir: Path, checkpoint: str, config_of: Callable[[], RunConfig]) -> Path:
    """Continues a run; its files are read only while no other process can change them."""
    refuse_to_run_again()
    device = run_config(run_dir).device  # no lock is left in a directory that holds no run
    with joined(device) as ranks:
        return _continue_together(run_dir, "latest" if _is_restarted() else checkpoint, config_of, ranks)


def _is_restarted() -> bool:
    """Return whether ``torchrun`` has started this command again."""
    launch = launched()
    return launch is not None and launch.restarts > 0


def _continue_together(run_dir: Path, checkpoint: str, config_of: Callable[[], RunConfig], ranks: Ranks) -> Path:
    """Continue a run; rank 0 locks its directory and finds the checkpoint."""
    with ExitStack() as stack:

        def find() -> str | None:
            stack.enter_context(lock(run_dir))
            config = config_of()
            changes = changes_from(run_config(run_dir), config)
            found = _load(checkpoint, run_dir, changes)
            if not changes and _is_finished(run_dir, found, config):
                _say(f"already finished at step {found.step}: {run_dir}")
                return None
            return found.path.name

        name = ranks.by_first(find, "reading the checkpoint")
        if name is None:
            return run_dir
        config = config_of()
        refuse_missing(config, files=False)
        found = Checkpoints(run_dir).load(name)
        return _run(config, run_dir, found, builder_of(config.algorithm).build_loop, config.total_steps, ranks)


def _load(name: str, run_dir: Path, changes: Sequence[Difference]) -> Checkpoint:
    """Return the checkpoint to continue from; it brings its settings along, and others would have half an effect."""
    checkpoint = Checkpoints(run_dir).load(name)
    refuse_cloned(checkpoint)
    for key, was, wanted in changes:
        if key in PLACES:  # the content of a store is compared
            continue
        if key.split(".")[0] not in CHANGEABLE:
            raise ConfigError(
                f"{key}: expected {was} as in {run_dir / 'config.yaml'}, got {wanted}; a resumed run can only change "
                f"{', '.join(CHANGEABLE)}, start a new run for the rest"
            )
        if key == "total_steps" and wanted < checkpoint.step:
            raise ConfigError(
                f"total_steps: expected at least {checkpoint.step:,}, the step of the checkpoint, got {wanted:,}; "
                "name an older checkpoint of the run, or leave it out"
            )
    if read_record(run_dir / METRICS, checkpoint.manifest["record"]) is None:
        _say(f"note: {run_dir / METRICS} is missing; a new record begins at step {checkpoint.step:,}")
    return checkpoint


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _is_finished(run_dir: Path, found: Checkpoint, config: RunConfig) -> bool:
    """Return whether nothing is left to do for a run: its training is over, and the final evaluation is on disk."""
    identity, file, early_stopping = read_identity(run_dir), run_dir / EVALUATION, early_stopping_of(config)
    stopped = early_stopping is not None and reached_in(found.state, early_stopping) >= early_stopping.evaluations
    if (found.step < config.total_steps and not stopped) or identity is None or not file.is_file():
        return False
    try:
        return read_sealed(file).get("run_id") == identity.run_id
    except StorageError:  # it is evaluated again
        return False


Build = Callable[[Task, Run], Loop]
"""Builds a loop at step 0."""


def run_loop(config: RunConfig, run_dir: str | Path | None, build: Build, *, total_steps: int | None = None) -> Path:
    """Like ``train``, for a new run of another loop.

    Args:
        config: what to train.
        run_dir: see ``train``.
        build: builds the loop, see `Builder.build_loop`.
        total_steps: of this loop; None takes those of the configuration.
    """
    refuse_to_run_again()
    refuse_missing(config)
    with joined(config.device) as ranks, ExitStack() as stack:
        earlier = ranks.by_first(lambda: earlier_run(config, run_dir), "looking for the run of this torchrun")
        if earlier is not None:
            path = Path(earlier)
            return _continue_together(path, "latest", lambda: run_config(path), ranks)

        def choose() -> str:
            chosen = stack.enter_context(new_directory(config, run_dir))
            mark_launch(chosen)
            return str(chosen)

        path = Path(ranks.by_first(choose, "choosing the directory of the run"))
        if not ranks.every(path.is_dir()):
            raise ConfigError(f"--run-dir: not all ranks see {path}; name a directory that all machines share")
        config = _with_measured_precision(config, ranks)
        return _run(config, path, None, build, total_steps or config.total_steps, ranks)


def _with_measured_precision(config: RunConfig, ranks: Ranks) -> RunConfig:
    """Return the configuration with the precision that rank 0 finds faster, in place of ``auto``."""
    if not is_measured(config):
        return config

    def measure() -> str:
        prepare_process(config.num_threads, config.float32_matmul)
        chosen, said = faster_precision(config)
        _say(said)
        return chosen

    return with_precision(config, ranks.by_first(measure, "measuring the precision"))


def _run(
    config: RunConfig, run_dir: Path, checkpoint: Checkpoint | None, build: Build, total_steps: int, ranks: Ranks
) -> Path:
    """Train in a directory that is locked."""
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
    """Give all ranks the weights of rank 0, and each of them random numbers of its own."""
    if ranks.number == 1:
        return
    ranks.copy_first(loop.learner.loss.state_dict().values())
    (agreed,) = np.random.SeedSequence(seed, spawn_key=(3,)).generate_state(1).tolist()
    ranks.seed(agreed)
    if ranks.rank:
        (own,) = np.random.SeedSequence(seed, spawn_key=(2, ranks.rank)).generate_state(1).tolist()
        seed_generators(own)


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
    if loop.journal.running:  # what was said of the run before is no longer its result
        (run_dir / EVALUATION).unlink(missing_ok=True)


def _finish(journal: Journal, config: RunConfig, run_dir: Path, progress: ProgressDisplay) -> None:
    """Evaluate the result of a run and draw its curve."""
    if journal.laps.seconds:  # a run that was over already has done nothing
        progress.note(f"where the time went: {journal.laps}")
    progress.note(f"trained {journal.step:,} steps; evaluating {config.evaluation.final_episodes} episodes")
    try:
        result = _final_evaluation(config, run_dir, progress)
    except (KeyboardInterrupt, StopNow) as stop:
        raise Interrupted(getattr(stop, "signum", signal.SIGINT), run_dir) from stop
    try:
        plot_curve(run_dir, title=f"{config.name} on {config.environment.id}, seed {config.seed}")
    except ModuleNotFoundError as error:  # the run is whole without its picture
        progress.note(f"no curve.png: {error}")
    progress.note(
        f"return {result['return_mean']:.1f} ± {result['return_std']:.1f} over {result['episodes']} episodes "
        f"({result['checkpoint']}; last weights {result['last_return_mean']:.1f}): {run_dir}"
    )


def _last_return(run_dir: Path) -> float | None:
    """Return the last training return in the record of a run."""
    path = run_dir / METRICS
    returns = series(read_metrics(path), "train/return")[1] if path.is_file() else []
    return returns[-1] if returns else None


def _restore(loop: Loop, checkpoint: Checkpoint, ranks: Ranks) -> None:
    """Continue from a checkpoint.

    Raises:
        StorageError: its state is not one that this loop has written; nothing on disk has been changed.
    """
    try:
        state = state_of_rank(
            ranks, checkpoint.state, checkpoint.path, remedy=partial(continued_by, checkpoint.path.parents[1])
        )
        manifest = {**checkpoint.manifest, "replay": replay_entries(checkpoint.manifest, ranks.rank)}
        loop.load(replace(checkpoint, state=state, manifest=manifest))
    except (StorageError, ConfigError, RankError, TaskError, WorkerError):
        raise
    except Exception as error:  # a state is nested data of many parts, and each of them fails in its own way
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
    write_sealed(run_dir / EVALUATION, {**result, "run_id": identity.run_id if identity else None})
    return result


@contextmanager
def _stopped_by_signals(loop: Loop) -> Iterator[list[int]]:
    """Turn SIGINT, SIGTERM and SIGHUP into an orderly stop; yield the list in which a received signal appears.

    A second signal acts at once.
    """
    received: list[int] = []

    def stop(signum: int) -> None:
        received.append(signum)
        loop.journal.stop = True
        give_back()

    with on_signals(stop) as give_back:
        yield received
