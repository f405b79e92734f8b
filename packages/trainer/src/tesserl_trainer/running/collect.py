"""``tesserl collect``: play a trained or a random policy and store its episodes."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tesserl_collectors.evaluation import Evaluation
from tesserl_collectors.process import prepare_process
from tesserl_configs import ConfigError, RunConfig, load_config
from tesserl_environments.main_guard import refuse_to_run_again
from tesserl_environments.making import StartKind
from tesserl_preference_data.trajectories import load_trajectories
from tesserl_preference_data.trajectory_writer import TrajectoryWriter
from tesserl_trainer.running.playing import Play, play_groups
from tesserl_trainer.running.run_directory import run_config
from tesserl_training.checkpoints.run_checkpoints import Checkpoints, Weights

TASK = {"id", "kwargs", "wrappers", "channels", "atari"}
"""Keys of ``environment:`` that determine the task; the others affect only the speed."""


def collect(
    source: str | Path,
    *,
    out: str | Path,
    episodes: int | None = None,
    steps: int | None = None,
    checkpoint: str = "best",
    random: bool = False,
    stochastic: bool = True,
    epsilon: float = 0.0,
    seed: int | None = None,
    same_start: int = 1,
    starts: StartKind = "seed",
    frames: bool = False,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Play whole episodes with the task's unscaled rewards and add them to a store of trajectories.

    Args:
        source: directory of a run; or a configuration, for random actions.
        out: directory of the store (see `TrajectoryWriter`); created if missing, extended otherwise.
        episodes: number of episodes, at least 1. Give either this or ``steps``.
        steps: play episodes until they have at least this many steps, at least 1.
        checkpoint: ``"best"``, ``"latest"``, or the name of a directory in ``checkpoints/``.
        random: take uniformly random actions instead of a policy's.
        stochastic: act as in training: an actor-critic policy samples, and IQN explores as it did at the checkpoint's
            step. False takes the best action.
        epsilon: probability per step of a uniformly random action instead of the policy's, in [0, 1).
        seed: seed of starts and actions; None takes the configuration's. Starts are numbered across calls, so the same
            seed gives new starts in an existing store.
        same_start: episodes from each start, at least 1.
        starts: method that repeats a start: ``"seed"`` of the reset, or ``"state"`` of the task.
        frames: also store a picture of every step.
        overrides: ``key=value`` on top of the configuration.

    Returns:
        ``path``, ``episodes``, ``steps``, ``starts``, ``return_mean``, ``return_std`` (of the new episodes),
        ``episodes_in_store``.

    Raises:
        StorageError: the run or the checkpoint does not exist or is damaged.
        ConfigError: the task renders no pictures, or a configuration was given without ``random``.
        InUseError: another process adds to ``out``, and has not finished after ten seconds.
        StoreError: ``out`` holds something else.
        ValueError: an option is out of its range, or episodes of one start began in different states.
    """
    refuse_to_run_again()
    play = Play(episodes, steps, stochastic, epsilon, same_start, starts, frames)
    config, weights = _source(Path(source), None if random else checkpoint, overrides)
    prepare_process(config.num_threads, config.float32_matmul)
    seed = config.seed if seed is None else seed
    task = config.environment.model_dump(mode="json", include=TASK)
    with ExitStack() as stack:
        acts = {**_acts(config, weights, play), "seed": seed}
        writer = stack.enter_context(TrajectoryWriter(out, source=acts, environment=task))
        for start, members in play_groups(config, weights, play, seed, writer.next_start, stack):
            for member in members:
                writer.add(member, start)
        writer.flush()
        return _summary(out, writer.source)


def _source(source: Path, checkpoint: str | None, overrides: Sequence[str]) -> tuple[RunConfig, Weights | None]:
    """Return the configuration, and the weights of the policy; None for random actions."""
    config = load_config(source, overrides) if source.is_file() else run_config(source, overrides)
    if checkpoint is None:
        return config, None
    if source.is_file():
        raise ConfigError(f"{source} is a configuration and has no trained policy; name a run, or play with --random")
    return config, Checkpoints(source).load_weights(checkpoint)


def _acts(config: RunConfig, weights: Weights | None, play: Play) -> dict[str, Any]:
    """Describe the acting policy for the manifest."""
    if weights is None:
        return {"policy": "random"}
    acts = {"policy": config.name, "algorithm": config.algorithm, "checkpoint": weights.path.name}
    return {**acts, "stochastic": play.stochastic, "epsilon": play.epsilon}


def _summary(out: str | Path, source: int) -> dict[str, Any]:
    """Summarise the episodes that one source added to a store."""
    stored = load_trajectories(out, verify=False)
    added = [episode for episode in stored.episodes if episode.source == source]
    returns = Evaluation([episode.episode_return for episode in added], [episode.length for episode in added])
    return {
        "path": str(out),
        "episodes": len(added),
        "steps": sum(episode.length for episode in added),
        "starts": len({episode.start for episode in added}),
        "return_mean": returns.return_mean,
        "return_std": returns.return_std,
        "episodes_in_store": len(stored),
    }
