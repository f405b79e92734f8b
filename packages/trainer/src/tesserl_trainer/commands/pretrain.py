"""``tesserl pretrain``: a policy that does what others did, for another run to start from."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from tensordict import TensorDict, TensorDictBase

from tesserl_configs import ConfigError, RunConfig, load_config
from tesserl_preference_opt import PreferencePairs, StoreError
from tesserl_trainer.commands.assembly import build_journal
from tesserl_trainer.commands.train import run_loop
from tesserl_trainer.loops.cloning import CloningLoop
from tesserl_trainer.run.journal import Loop
from tesserl_trainer.run.observations import ObservationLayout
from tesserl_trainer.run.pair_sources import StoredPairs, check_entries
from tesserl_trainer.run.pairs import Batches, Shuffled, with_entries
from tesserl_trainer.run.progress import ProgressDisplay
from tesserl_trainer.run.trajectories import load_trajectories
from tesserl_trainer.wiring.algorithms import build_algorithm
from tesserl_trainer.wiring.environments import make_environments
from tesserl_trainer.wiring.learning import device_of, observing_rollouts
from tesserl_trainer.wiring.networks import build_network, make_layout
from tesserl_trainer.wiring.preferences import cloning_learner

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
    """Clones behaviour with the network of a configuration.

    The result is the directory of a run, for ``evaluate``, and for ``initial_weights`` of the same or of another
    algorithm with the same ``nn``. In ``total_steps`` and the intervals its steps are gradient updates.

    Args:
        config_path: the configuration: task, network, optimiser, and the algorithm whose network it is.
        pairs: directory of stored pairs; or
        trajectories: directory of stored episodes. One of the two.
        data: of pairs, which side: the preferred segments, or all.
        updates: gradient updates, at least 1.
        batch_size: pairs (default: 64), or steps of episodes (default: 256), in each of them.
        run_dir: where the run goes; by default ``runs/<name>-bc``, with a number behind it where that is taken.
        overrides: ``key=value`` on top of the configuration.

    Returns:
        The run's directory.

    Raises:
        ConfigError: the network is no policy, or the data are not of this task.
        ValueError: not one of ``pairs`` and ``trajectories``, or a number is out of its range.
    """
    if (pairs is None) == (trajectories is None):
        raise ValueError("expected pairs or trajectories to clone, got " + ("neither" if pairs is None else "both"))
    if updates < 1 or (batch_size is not None and batch_size < 1):
        raise ValueError(f"updates and batch_size must be at least 1, got {updates} and {batch_size}")
    config = load_config(config_path, [*overrides, f"total_steps={updates}"])
    if config.algorithm == "iqn":
        raise ConfigError("algorithm: iqn has no policy that could clone actions; choose ppo, grpo, dpo or cpl")
    kind, path = ("pairs", Path(pairs)) if pairs is not None else ("trajectories", Path(str(trajectories)))
    size = batch_size or BATCH_SIZE[kind]

    def build(config: RunConfig, run_dir: Path, progress: ProgressDisplay, stack: ExitStack) -> Loop:
        return _cloning(config, run_dir, progress, stack, lambda *arguments: DATA[kind](path, size, *arguments), data)

    named = config.model_copy(update={"name": f"{config.name}-bc"})
    return run_loop(named, run_dir, build)


def _cloning(
    config: RunConfig,
    run_dir: Path,
    progress: ProgressDisplay,
    stack: ExitStack,
    data: Callable[..., Draw],
    side: Literal["chosen", "all"],
) -> Loop:
    """From a configuration and data to a loop that is ready to run."""
    environments = make_environments(config.environment, 1, evaluation=True)
    stack.callback(environments.close)
    spaces = environments.single_observation_space, environments.single_action_space
    layout = make_layout(config, spaces[0])
    network: Any = build_network(config, *spaces)
    algorithm = build_algorithm(config, network)
    learner = cloning_learner(config, network, side=side, max_grad_norm=getattr(config, config.algorithm).max_grad_norm)
    try:
        draw = data(config, layout, observing_rollouts(network))
    except (KeyError, OSError, StoreError, ValueError) as error:
        raise ConfigError(f"data to clone: {error}") from error
    journal = build_journal(config, run_dir, algorithm, layout, list, [], progress, stack)
    return CloningLoop(learner, draw, algorithm.saved, journal)


def _pairs(path: Path, size: int, config: RunConfig, layout: ObservationLayout, observe: Callable[..., None]) -> Draw:
    """Batches of stored pairs."""
    keys = [*layout.keys, "action"]

    def prepare(pairs: PreferencePairs) -> PreferencePairs:
        check_entries(pairs.pool.blocks[0].steps, keys, layout.shapes, path)
        return with_entries(pairs, keys)

    stored = StoredPairs(path, prepare, holdout_fraction=0.0, seed=config.seed)
    for steps in stored.steps():
        observe(steps)
    batches = Batches(keys, device=config.device)
    return lambda: batches.pairs(stored.draw(size))


def _steps(path: Path, size: int, config: RunConfig, layout: ObservationLayout, observe: Callable[..., None]) -> Draw:
    """Batches of steps of stored episodes."""
    keys = [*layout.keys, "action"]
    episodes = load_trajectories(path)
    check_entries(episodes[0], keys, layout.shapes, path)
    steps = TensorDict.cat([episode.select(*keys) for episode in episodes])
    observe(steps)
    order, device = Shuffled(len(steps)), device_of(config.device)
    return lambda: steps[order.take(size)].to(device)


DATA: dict[str, Callable[..., Draw]] = {"pairs": _pairs, "trajectories": _steps}
