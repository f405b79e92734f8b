"""``tesserl train``: train a run from one YAML file."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tesserl_collectors.process import prepare_process
from tesserl_configs import ConfigError, RunConfig
from tesserl_environments.main_guard import refuse_to_run_again
from tesserl_environments.registration import TaskMaker
from tesserl_ranks.group import Ranks
from tesserl_ranks.joining import joined
from tesserl_trainer.algorithms import builder_of
from tesserl_trainer.algorithms.environments import with_maker
from tesserl_trainer.algorithms.precision import faster_precision
from tesserl_trainer.machine import refuse_missing
from tesserl_trainer.networks.bodies import MakeBody, with_body
from tesserl_trainer.running.directories import new_directory
from tesserl_trainer.running.restarts import earlier_run, mark_launch
from tesserl_trainer.running.resuming import continue_run, continue_together, say
from tesserl_trainer.running.run_directory import measures_precision, run_config, with_precision
from tesserl_trainer.running.run_to_end import Build, run_to_end


def train(
    config: RunConfig,
    *,
    run_dir: str | Path | None = None,
    resume: bool | str = False,
    environment: TaskMaker | None = None,
    body: MakeBody | None = None,
) -> Path:
    """Train a run, evaluate it and draw its learning curve.

    Args:
        config: the configuration of the run.
        run_dir: directory of the run; by default ``runs/<name>`` below the current directory, with a number appended
            if it exists.
        resume: continue the run in ``run_dir`` from its latest checkpoint, or from the checkpoint of this name; newer
            checkpoints are removed.
        environment: function that makes one environment, called with ``environment.kwargs``; ``environment.id`` then
            only names the task. Such a run can be resumed only from Python. None: the task is registered.
        body: function or class at the top level of a module that makes a body in place of ``nn``'s encoders and fusion,
            see `build_own_body`; the run stores its name as ``nn.body``. None: build the body from ``nn``.

    Returns:
        The run's directory.

    Raises:
        StorageError: the checkpoint to resume from is missing or damaged; nothing was changed.
        ConfigError: the configuration does not fit the task, the directory exists, or the resumed run had another
            configuration.
        InUseError: another process trains in the directory.
        DivergenceError: the loss became NaN or infinite.
        RankError: under ``torchrun``, another rank was lost or has different weights.
        Interrupted: SIGINT, SIGTERM or SIGHUP was received; a checkpoint has been written.
        TaskError: an environment raised an error, or returned NaN or a value outside of its spaces.
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
    return continue_run(Path(run_dir), "latest" if resume is True else resume, lambda: config)


def resume_run(run_dir: Path, overrides: Sequence[str] = (), *, checkpoint: str = "latest") -> Path:
    """Continue a run with the configuration in its directory.

    Args:
        run_dir: directory of the run.
        overrides: ``key=value`` on top of the run's configuration.
        checkpoint: ``"latest"``, ``"best"``, or the name of a directory in ``checkpoints/``.

    Returns:
        ``run_dir``.

    Raises:
        Exception: see ``train``.
    """
    return continue_run(run_dir, checkpoint, lambda: run_config(run_dir, overrides))


def run_loop(config: RunConfig, run_dir: str | Path | None, build: Build, *, total_steps: int | None = None) -> Path:
    """Train a new run like ``train``, with a given loop and number of steps."""
    refuse_to_run_again()
    refuse_missing(config)
    with joined(config.device) as ranks, ExitStack() as stack:
        earlier = ranks.by_first(lambda: earlier_run(config, run_dir), "looking for the run of this torchrun")
        if earlier is not None:
            path = Path(earlier)
            return continue_together(path, "latest", lambda: run_config(path), ranks)

        def choose() -> str:
            chosen = stack.enter_context(new_directory(config, run_dir))
            mark_launch(chosen)
            return str(chosen)

        path = Path(ranks.by_first(choose, "choosing the directory of the run"))
        if not ranks.every(path.is_dir()):
            raise ConfigError(f"--run-dir: not all ranks see {path}; name a directory that all machines share")
        config = _with_measured_precision(config, ranks)
        return run_to_end(config, path, None, build, total_steps or config.total_steps, ranks)


def _with_measured_precision(config: RunConfig, ranks: Ranks) -> RunConfig:
    """Replace ``precision: auto`` by the precision that rank 0 measures to be faster."""
    if not measures_precision(config):
        return config

    def measure() -> str:
        prepare_process(config.num_threads, config.float32_matmul)
        chosen, said = faster_precision(config)
        say(said)
        return chosen

    return with_precision(config, ranks.by_first(measure, "measuring the precision"))
