"""``tesserl collect``: plays a trained or a random policy and stores its episodes."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click
import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.registration import load_env_creator
from tensordict import TensorDictBase

from tesserl_configs import ConfigError, RunConfig, load_config
from tesserl_grpo import check_shared_start
from tesserl_trainer.commands.evaluate import find_checkpoint, run_config
from tesserl_trainer.run.checkpoint import load_networks, read_manifest
from tesserl_trainer.run.collect import Collector
from tesserl_trainer.run.episodes import Behavior, UniformActions, play_episodes
from tesserl_trainer.run.policy import RolloutPolicy
from tesserl_trainer.run.starts import GroupStarts, SeedStart, StateStart
from tesserl_trainer.run.state import seed_generators
from tesserl_trainer.run.trajectories import load_trajectories
from tesserl_trainer.run.trajectory_writer import TrajectoryWriter
from tesserl_trainer.wiring.algorithms import build_algorithm
from tesserl_trainer.wiring.environments import Environments, make_environments, register
from tesserl_trainer.wiring.networks import build_network, make_layout

TASK = {"id", "kwargs", "wrappers", "channels", "atari"}
"""What of ``environment:`` says which task was played; the rest says how fast."""


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
    starts: str = "seed",
    frames: bool = False,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Plays whole episodes with the task's own rewards and adds them to a store of trajectories.

    Args:
        source: directory of a run; or a configuration, for random actions.
        out: directory of the store (see ``run.trajectories``); made where there is none, extended where there is one.
        episodes: how many, at least 1; or
        steps: episodes until there are at least so many steps, at least 1. One of the two.
        checkpoint: ``"best"``, ``"latest"``, or the name of a directory in ``checkpoints/``.
        random: uniformly random actions instead of a policy.
        stochastic: act as in training: an actor-critic policy samples, and IQN explores as it did at the checkpoint's
            step. Otherwise the best action is taken.
        epsilon: probability of a uniformly random action in place of the policy's, in [0, 1); all are with ``random``.
        seed: of starts and actions; None takes the configuration's. The starts of a store are numbered on, so the same
            seed gives new ones.
        same_start: episodes of each start, at least 1.
        starts: how episodes are given the same start: ``"seed"`` of the reset, or ``"state"`` of the task.
        frames: keep a picture of every step, for people to look at.
        overrides: ``key=value`` on top of the configuration.

    Returns:
        ``path``, ``episodes``, ``steps``, ``starts``, ``return_mean``, ``return_std`` (of what was added),
        ``episodes_in_store``.

    Raises:
        CheckpointError: there is no such run or checkpoint, or it is damaged.
        ConfigError: the task draws no pictures, or a configuration was given without ``random``.
        StoreError: ``out`` holds something else.
        ValueError: an option is out of its range, or episodes of one start did not start alike.
    """
    _check(episodes, steps, same_start, epsilon, starts)
    config, path = _source(Path(source), None if random else checkpoint, overrides)
    torch.set_num_threads(config.num_threads)
    acts: dict[str, Any] = {"policy": "random"}
    if path is not None:
        acts = {"policy": config.name, "algorithm": config.algorithm, "checkpoint": path.name}
        acts |= {"stochastic": stochastic, "epsilon": epsilon}
    seed = config.seed if seed is None else seed
    task = config.environment.model_dump(mode="json", include=TASK)
    returns: list[float] = []
    lengths: list[int] = []
    with ExitStack() as stack:
        writer = stack.enter_context(TrajectoryWriter(out, source={**acts, "seed": seed}, environment=task))
        config = _drawing(config) if frames else config
        num_envs = min(config.evaluation.num_envs, episodes or config.evaluation.num_envs)
        environments = _environments(config, num_envs, starts, stack)
        drawn = int(np.random.SeedSequence([seed, writer.next_start]).generate_state(1)[0])
        seed_generators(drawn)
        policy = _policy(config, path, environments, seed=drawn, stochastic=stochastic, stack=stack)
        mixed = UniformActions(environments.single_action_space, drawn + 1) if epsilon > 0 else None
        render = partial(_pictures, environments, config) if frames else None
        behavior = Behavior(policy, mixed, epsilon=epsilon, render=render)
        kind = StateStart if starts == "state" else SeedStart
        grouped = GroupStarts(environments, kind(seed), group_size=same_start)
        grouped.next_group = writer.next_start
        layout = make_layout(config, environments.single_observation_space)
        tell = getattr(policy, "start", None)
        collector = Collector(grouped, layout, behavior.act, device=config.device, on_start=tell)
        most = steps or (episodes or 0) // same_start
        for start, members in play_episodes(collector, grouped, behavior, num_groups=most):
            _check_start(start, members, layout.keys)
            for member in members:
                writer.add(member, start)
            returns += [float(member["next", "reward"].double().sum()) for member in members]
            lengths += [len(member) for member in members]
            if steps is not None and sum(lengths) >= steps:
                break
    return {
        "path": str(out),
        "episodes": len(lengths),
        "steps": sum(lengths),
        "starts": len(lengths) // same_start,
        "return_mean": float(np.mean(returns)),
        "return_std": float(np.std(returns)),
        "episodes_in_store": len(load_trajectories(out, verify=False)),
    }


def _check(episodes: int | None, steps: int | None, same_start: int, epsilon: float, starts: str) -> None:
    if (episodes is None) == (steps is None):
        raise ValueError(f"either episodes or steps must be said, got {episodes} and {steps}")
    wrong = {
        f"episodes must be at least 1, got {episodes}": episodes is not None and episodes < 1,
        f"steps must be at least 1, got {steps}": steps is not None and steps < 1,
        f"same_start must be at least 1, got {same_start}": same_start < 1,
        f"epsilon must be in [0, 1), got {epsilon}; for 1 play at random": not 0 <= epsilon < 1,
        f"starts must be seed or state, got {starts!r}": starts not in ("seed", "state"),
    }
    for rule, broken in wrong.items():
        if broken:
            raise ValueError(rule)
    if episodes is not None and episodes % same_start:
        raise ValueError(
            f"episodes must be a multiple of same_start, got {episodes} and {same_start}; every start has as many"
        )


def _source(source: Path, checkpoint: str | None, overrides: Sequence[str]) -> tuple[RunConfig, Path | None]:
    """The configuration, and the checkpoint of the policy; None where none is wanted."""
    config = load_config(source, overrides) if source.is_file() else run_config(source, overrides)
    if checkpoint is None:
        return config, None
    if source.is_file():
        raise ConfigError(f"{source} is a configuration and has no trained policy; name a run, or play with --random")
    return config, find_checkpoint(source, checkpoint)


def _drawing(config: RunConfig) -> RunConfig:
    """The configuration of a task that draws pictures.

    Raises:
        ConfigError: it does not.
    """
    task = config.environment
    why = f"vectorization {task.vectorization}" if task.vectorization in ("atari", "envpool") else ""
    if not why:
        register(task.id)
        point: Any = gym.spec(task.id).entry_point
        point = load_env_creator(point) if isinstance(point, str) else point
        modes = getattr(point, "metadata", {}).get("render_modes")
        why = f"its render modes are {modes}" if modes is not None and "rgb_array" not in modes else ""
    if why:
        raise ConfigError(f"environment.id: {task.id} draws no pictures ({why}); collect with --no-frames")
    environment = task.model_copy(update={"kwargs": {**task.kwargs, "render_mode": "rgb_array"}})
    return config.model_copy(update={"environment": environment})


def _environments(config: RunConfig, num_envs: int, starts: str, stack: ExitStack) -> Environments:
    environments = make_environments(
        config.environment,
        num_envs,
        evaluation=True,
        restorable=starts == "state",
        max_length=config.evaluation.max_episode_steps,
    )
    stack.callback(environments.close)
    return environments


def _pictures(environments: Environments, config: RunConfig) -> Any:
    """What all environments show.

    Raises:
        ConfigError: a package that draws is missing.
    """
    try:
        return environments.render()
    except gym.error.DependencyNotInstalled as error:
        raise ConfigError(
            f"environment.id: {config.environment.id} cannot be drawn ({error}); collect with --no-frames"
        ) from error


def _policy(
    config: RunConfig,
    checkpoint: Path | None,
    environments: Environments,
    *,
    seed: int,
    stochastic: bool,
    stack: ExitStack,
) -> Any:
    """The policy of a checkpoint, as it acted then or at its best; random actions without one."""
    if checkpoint is None:
        return UniformActions(environments.single_action_space, seed)
    spaces = environments.single_observation_space, environments.single_action_space
    algorithm = build_algorithm(config, build_network(config, *spaces))
    algorithm.load_networks(load_networks(checkpoint))
    if not stochastic:
        return stack.enter_context(algorithm.policy.greedy())
    for schedule in algorithm.schedules:
        schedule.apply(schedule.value(read_manifest(checkpoint)["step"]))
    if isinstance(algorithm.policy, RolloutPolicy):
        algorithm.policy.network.eval()
    return algorithm.policy


def _check_start(start: int, members: Sequence[TensorDictBase], keys: Sequence[str]) -> None:
    """Refuses episodes of one start that did not begin alike."""
    if len(members) > 1:
        for key in keys:
            firsts = torch.stack([member[key][0] for member in members])
            check_shared_start(firsts, torch.full((len(members),), start), name=key)


@click.command(name="collect", help="Play a run's policy, or a random one, and store its episodes.")
@click.argument("source", metavar="RUN_DIR|CONFIG", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The store; extended where there is one.")
@click.option("--episodes", type=click.IntRange(min=1), help="Number of episodes.")
@click.option("--steps", type=click.IntRange(min=1), help="Episodes until there are so many steps.")
@click.option("--checkpoint", default="best", show_default=True, help="best, latest, or step_*.")
@click.option("--random", is_flag=True, help="Uniformly random actions; a configuration is enough.")
@click.option("--stochastic/--greedy", default=True, show_default=True, help="Act as in training, or take the best.")
@click.option(
    "--epsilon", type=click.FloatRange(0, 1, max_open=True), default=0.0, help="Probability of a random action instead."
)
@click.option("--seed", type=click.IntRange(min=0), help="Of starts and actions. Default: the configuration's.")
@click.option("--same-start", metavar="G", type=click.IntRange(min=1), default=1, help="Episodes of each start.")
@click.option("--starts", type=click.Choice(["seed", "state"]), default="seed", show_default=True, help="Given by.")
@click.option("--frames/--no-frames", default=False, show_default=True, help="Keep pictures, to be looked at.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key; may be repeated.")
def command(source: Path, **options: Any) -> None:
    """Prints ``collect`` as JSON."""
    if (options["episodes"] is None) == (options["steps"] is None):
        raise click.UsageError("name either --episodes or --steps")
    click.echo(json.dumps(collect(source, **options), indent=2))
