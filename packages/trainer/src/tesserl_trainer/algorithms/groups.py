"""Build the environments, starts and collector of groups of trajectories."""

from tesserl_collectors.groups import GroupCollector
from tesserl_collectors.rollout_policy import RolloutPolicy
from tesserl_configs import ConfigError
from tesserl_configs.grpo import GRPOConfig
from tesserl_configs.pairs import MixedPairs, OnlinePairs
from tesserl_configs.preferences import PreferenceOptions
from tesserl_configs.starts import LevelStarts, RepeatedStarts, VisitedStarts
from tesserl_environments import GroupStarts, LevelStart, SeedStart, Start, StateStart, VisitedStart
from tesserl_environments.making import Environments
from tesserl_grpo import check_shared_start
from tesserl_trainer.algorithms.agent import Actor
from tesserl_trainer.algorithms.environments import has_time_limit
from tesserl_trainer.algorithms.run import make_collector
from tesserl_trainer.algorithms.task import Task

GroupOptions = GRPOConfig | OnlinePairs | MixedPairs
"""Blocks with options for the starts of groups."""


def training_environments(task: Task) -> Environments:
    """Make the environments in which a run or one of its workers collects."""
    options, source = task.config.options, task.config.pairs.source
    if isinstance(options, GRPOConfig):
        return _group_environments(task, options)
    if isinstance(options, PreferenceOptions) and isinstance(source, OnlinePairs | MixedPairs):
        return _group_environments(task, source)
    return task.environments(task.config.environment.num_envs)


def _group_environments(task: Task, options: GroupOptions) -> Environments:
    """Make the environments that play the trajectories of groups."""
    require_ends(task, options)
    return task.environments(
        task.config.environment.num_envs,
        groups=True,
        starts=options.starts.kind,
        max_length=options.max_length if isinstance(options, GRPOConfig) else None,
    )


def require_ends(task: Task, options: GroupOptions) -> None:
    """Refuse a task whose trajectories may never end: groups play every trajectory to its end."""
    config = task.config.environment
    limits = ["environment.wrappers to [{kind: time_limit, max_episode_steps: 1000}]"]
    if isinstance(options, GRPOConfig):
        limits.insert(0, "grpo.max_length")
    if not (isinstance(options, GRPOConfig) and options.max_length) and not has_time_limit(config):
        raise ConfigError(
            f"environment.id: {config.id} has no time limit, and trajectories are played to their end: an episode that "
            f"never ends would be played forever; set {' or '.join(limits)}"
        )


def make_group_collector(
    task: Task,
    actor: Actor[RolloutPolicy],
    environments: Environments,
    options: GroupOptions,
) -> GroupCollector:
    """Make the collector of whole groups in environments of `training_environments`."""
    starts = make_starts(options, environments, seed=task.config.seed)
    return GroupCollector(
        make_collector(task, actor, environments, starts=starts),
        starts,
        actor.policy,
        task.layout.keys,
        check=check_shared_start,
    )


def make_starts(options: GroupOptions, environments: Environments, *, seed: int) -> GroupStarts:
    """Return the object that resets a vector environment in DISABLED autoreset mode to the starts of groups."""
    start: Start
    number: int | None = None
    match options.starts:
        case LevelStarts() as levels:
            start, number = LevelStart(seed, levels.option), levels.num_levels
        case RepeatedStarts() as repeated:
            start = SeedStart(seed) if repeated.kind == "seed" else StateStart(seed)
            number = repeated.num_starts
        case VisitedStarts(fraction=fraction):
            num_resets = max(round((1 - fraction) * options.num_groups), 1)  # of an iteration
            start = VisitedStart(seed, fraction=fraction, num_kept=num_resets * options.group_size)
    return GroupStarts(environments, start, group_size=options.group_size, num_starts=number)
