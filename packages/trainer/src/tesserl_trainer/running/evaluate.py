"""``tesserl eval``: play a trained policy, report its returns, film it."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tesserl_analysis import run_files
from tesserl_collectors.process import prepare_process
from tesserl_configs import RunConfig
from tesserl_environments import closed_afterwards
from tesserl_environments.registration import TaskMaker
from tesserl_trainer.algorithms.environments import with_maker
from tesserl_trainer.algorithms.filming import Camera, require_encoder
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.running.playing import acting
from tesserl_trainer.running.run_directory import run_config
from tesserl_training.checkpoints.run_checkpoints import Checkpoints, Weights

WITHOUT_VIDEO = "evaluate without --video"

UNUSED_SEEDS = 1_000_000
"""Offset from ``evaluation.seed`` to seeds that no evaluation during training uses."""


def evaluate(
    run_dir: str | Path,
    *,
    episodes: int = 100,
    seed: int | None = None,
    checkpoint: str = "best",
    stochastic: bool = False,
    video: int = 0,
    overrides: Sequence[str] = (),
    on_episode: Callable[[float], None] | None = None,
    environment: TaskMaker | None = None,
) -> dict[str, Any]:
    """Play episodes with the policy of a run.

    Args:
        run_dir: directory of the run.
        episodes: number of episodes, at least 1.
        seed: the episodes use seeds ``seed, seed + 1, ...``; None takes seeds that training never used.
        checkpoint: ``"best"``, ``"latest"``, or the name of a directory in ``checkpoints/``.
        stochastic: explore as in training at the checkpoint's step; False acts greedily.
        video: number of first episodes to film, as MP4 files in ``RUN/videos``; at most ``episodes``.
        overrides: ``key=value`` on top of the run's configuration, such as another task or device.
        on_episode: called with the return of each episode that ends.
        environment: function that makes one environment, if the run was trained with one; see `train`.

    Returns:
        ``return_mean``, ``return_std``, ``returns``, ``lengths``, ``episodes``, ``seed``, ``checkpoint``; with
        ``video`` also ``videos``, the paths of the films.

    Raises:
        StorageError: the run or the checkpoint does not exist or is damaged.
        ConfigError: the task renders no frames to film.
        ValueError: ``episodes`` is not positive.
    """
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}")
    if video:
        require_encoder()
    run_dir = Path(run_dir)
    config = run_config(run_dir, overrides)
    if environment is not None:
        config = with_maker(config, environment)
    weights = Checkpoints(run_dir).load_weights(checkpoint)
    prepare_process(config.num_threads, config.float32_matmul)
    first = first_seed(config, seed)
    seeds = range(first, first + episodes)
    task = Task(config)
    made = task.evaluation_environments(episodes)
    with closed_afterwards(made) as environments, acting(task, weights, stochastic=stochastic) as policy:
        result = task.play(policy, environments, seeds, on_episode=on_episode)
    found = {
        "return_mean": result.return_mean,
        "return_std": result.return_std,
        "returns": result.returns,
        "lengths": result.lengths,
        "episodes": episodes,
        "seed": first,
        "checkpoint": weights.path.name,
    }
    if video:
        films = _film(config, weights, seeds[:video], run_dir / run_files.VIDEOS, stochastic=stochastic)
        found["videos"] = [str(path) for path in films]
    return found


def first_seed(config: RunConfig, seed: int | None) -> int:
    """Return ``seed``, or for None the first seed that training never used."""
    return config.evaluation.seed + UNUSED_SEEDS if seed is None else seed


def _film(config: RunConfig, weights: Weights, seeds: Sequence[int], place: Path, *, stochastic: bool) -> list[Path]:
    """Play the episode of each seed again and film it."""
    with ExitStack() as stack:
        camera = Camera(config, place, stack, remedy=WITHOUT_VIDEO)
        policy = stack.enter_context(acting(camera.task, weights, stochastic=stochastic))
        return [camera.film(policy, weights.path.name, seed) for seed in seeds]
