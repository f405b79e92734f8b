"""``tesserl pretrain``: train a policy by behaviour cloning; other runs can start from its weights."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from tensordict import TensorDict, TensorDictBase

from tesserl_collectors.rollout_policy import RolloutPolicy
from tesserl_configs import ConfigError, RunConfig
from tesserl_configs.base import short_enough
from tesserl_configs.loader import load_with_places
from tesserl_environments import ObservationLayout
from tesserl_preference_data import PreferencePairs, StoreError
from tesserl_preference_data.trajectories import load_trajectories
from tesserl_ranks.joining import launched
from tesserl_trainer.algorithms.agent import observing_rollouts
from tesserl_trainer.algorithms.preferences import cloning_learner
from tesserl_trainer.algorithms.run import Run
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.machine import device_of, refuse_missing
from tesserl_trainer.running.train import run_loop
from tesserl_trainer.usage import ArgumentError
from tesserl_training.journal import Loop
from tesserl_training.loops.cloning import CloningLoop
from tesserl_training.pair_batches import Batches, Shuffled, with_entries
from tesserl_training.pair_sources import StoredPairs, check_actions, check_entries

BATCH_SIZE = {"pairs": 64, "trajectories": 256}
Draw = Callable[[], TensorDictBase]


def pretrain_bc(
    config_path: str | Path,
    *,
    pairs: str | Path | None = None,
    trajectories: str | Path | None = None,
    data: Literal["chosen", "all"] = "all",
    updates: int = 2_000,
    batch_size: int | None = None,
    run_dir: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> Path:
    """Train the network of a configuration by behaviour cloning.

    The result is a run directory. ``evaluate`` accepts it, and so does ``initial_weights`` of any algorithm with the
    same ``nn``. The steps of this run, and the intervals of its configuration, count gradient updates.

    Args:
        config_path: the configuration: task, network, optimiser, and the algorithm that determines the network.
        pairs: directory of stored pairs. Give either this or ``trajectories``.
        trajectories: directory of stored episodes.
        data: segments of pairs to clone: ``"chosen"``, the preferred ones, or ``"all"``.
        updates: gradient updates, at least 1.
        batch_size: pairs (default: 64) or steps of episodes (default: 256) per update.
        run_dir: directory of the new run; by default ``runs/<name>-bc``, with a number appended if it exists.
        overrides: ``key=value`` on top of the configuration.

    Returns:
        The run's directory.

    Raises:
        ConfigError: the network is not a policy, or the data belong to another task.
        ValueError: both or neither of ``pairs`` and ``trajectories`` are given, or a number is out of its range.
    """
    if (pairs is None) == (trajectories is None):
        raise ArgumentError("expected pairs or trajectories to clone, got " + ("neither" if pairs is None else "both"))
    launch = launched()
    if launch is not None and launch.number > 1:
        raise ArgumentError(f"pretrain: expected one process, got {launch.number}; start it without torchrun")
    if updates < 1 or (batch_size is not None and batch_size < 1):
        raise ArgumentError(f"updates and batch_size must be at least 1, got {updates} and {batch_size}")
    loaded = load_with_places(config_path, overrides)
    config = loaded.config
    refuse_missing(config, placed=loaded.placed)
    kind, path = ("pairs", Path(pairs)) if pairs is not None else ("trajectories", Path(str(trajectories)))
    size = batch_size or BATCH_SIZE[kind]

    def build(task: Task, run: Run) -> Loop:
        cloning = Task(task.config.model_copy(update={"total_steps": updates}))  # not validated as training
        return _cloning(cloning, run, lambda *arguments: DATA[kind](path, size, *arguments), data)

    return run_loop(config.model_copy(update={"name": _cloned_name(config)}), run_dir, build, total_steps=updates)


def _cloned_name(config: RunConfig) -> str:
    """Return the name of the cloning run of a configuration."""
    try:
        return short_enough(f"{config.name}-bc")
    except ValueError as error:
        raise ConfigError(f"name: {config.name}-bc: {error}; set a shorter name") from error


def _cloning(
    task: Task,
    run: Run,
    data: Callable[..., Draw],
    side: Literal["chosen", "all"],
) -> Loop:
    """Build the loop of behaviour cloning."""
    config, agent = task.config, task.agent()
    if not isinstance(agent.policy, RolloutPolicy):
        raise ConfigError(
            f"algorithm: {config.algorithm} has no policy that could clone actions; choose ppo, grpo, dpo or cpl"
        )
    network = agent.policy.network
    learner = cloning_learner(config, network, side=side, precision=agent.precision, max_grad_norm=agent.max_grad_norm)
    try:
        draw = data(config, task.layout, observing_rollouts(network))
    except (KeyError, OSError, StoreError, ValueError) as error:
        raise ConfigError(f"data to clone: {error}") from error
    return CloningLoop(learner, draw, agent.saved, run.journal(task, agent, list))


def _pairs(path: Path, size: int, config: RunConfig, layout: ObservationLayout, observe: Callable[..., None]) -> Draw:
    """Return the function that draws batches of stored pairs."""
    keys = [*layout.keys, "action"]

    def prepare(pairs: PreferencePairs) -> PreferencePairs:
        check_entries(pairs.pool.blocks[0].steps, keys, layout.shapes, path)
        check_actions((block.steps for block in pairs.pool.blocks), layout.mask, path)
        return with_entries(pairs, keys)

    stored = StoredPairs(path, prepare, holdout_fraction=0.0, seed=config.seed)
    for steps in stored.steps():
        observe(steps)
    batches = Batches(keys, device=config.device)
    return lambda: batches.pairs(stored.draw(size))


def _steps(path: Path, size: int, config: RunConfig, layout: ObservationLayout, observe: Callable[..., None]) -> Draw:
    """Return the function that draws batches of steps of stored episodes."""
    keys = [*layout.keys, "action"]
    episodes = load_trajectories(path)
    check_entries(episodes[0], keys, layout.shapes, path)
    steps = TensorDict.cat([episode.select(*keys) for episode in episodes])
    check_actions([steps], layout.mask, path)
    observe(steps)
    order, device = Shuffled(len(steps)), device_of(config.device)
    return lambda: steps[order.take(size)].to(device)


DATA: dict[str, Callable[..., Draw]] = {"pairs": _pairs, "trajectories": _steps}
