"""Build what the algorithms share that learn from preference pairs: the agent, the pairs and the loop."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

from torch import nn

from tesserl_actor_critic import ActorCritic
from tesserl_collectors.collector import Episode
from tesserl_collectors.interfaces import GroupCollecting, WorkerRecord
from tesserl_collectors.rollout_policy import RolloutPolicy
from tesserl_configs import ConfigError, RunConfig
from tesserl_configs.pairs import (
    EpisodeSegments,
    FixedSegments,
    MixedPairs,
    OfflinePairs,
    OnlinePairs,
    Segments,
    VariableSegments,
)
from tesserl_configs.policy import Precision
from tesserl_configs.preferences import CPLConfig, DPOConfig
from tesserl_environments import ObservationLayout
from tesserl_policy import ReferencePolicy
from tesserl_preference_data import PreferencePairs, ScriptedTeacher, StoreError
from tesserl_preference_opt import BehaviorCloningLoss
from tesserl_trainer.algorithms.acting.groups import build_actor, build_collector
from tesserl_trainer.algorithms.agent import (
    Agent,
    forward_of,
    learning,
    learning_rate_schedule,
    nothing,
    observing_rollouts,
    optimizer_of,
)
from tesserl_trainer.algorithms.collectors import build_agent_and_group_collector
from tesserl_trainer.algorithms.run import Run
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.machine import device_of
from tesserl_trainer.networks.building import as_actor_critic
from tesserl_training.cloning import Cloning
from tesserl_training.learner import Learner
from tesserl_training.loops.preferences import Pace, PreferenceLoop
from tesserl_training.pair_batches import REFERENCE, SCORE, VALUE_TARGET, Batches, with_entries
from tesserl_training.pair_sources import FreshPairs, StoredPairs, check_actions, check_entries
from tesserl_training.reference_policies import Policies
from tesserl_training.schedule import Scheduled

PairAgent = Agent[RolloutPolicy, nn.Module, Policies]
Options = DPOConfig | CPLConfig
"""The block of an algorithm that learns from pairs."""


def placed(task: Task, options: Options, network: nn.Module) -> ActorCritic:
    """Return a network on its device, its value frozen unless the block has a ``value``.

    Raises:
        ConfigError: the device is not there.
        TypeError: it is no ``ActorCritic``.
    """
    actor_critic = as_actor_critic(network.to(device_of(task.config.device)), task.config.algorithm)
    if options.value is None:
        actor_critic.value.requires_grad_(False)
    return actor_critic


def build_pair_agent(
    task: Task,
    options: Options,
    network: ActorCritic,
    loss: nn.Module,
    schedules: list[Scheduled],
    *,
    frozen: ReferencePolicy | None = None,
    follow: Callable[[int], None] = nothing,
) -> PairAgent:
    """Build the optimiser and the policy around a network and its loss.

    Args:
        task: of the run.
        options: the block of the algorithm.
        network: placed on its device.
        loss: of pairs.
        schedules: of the loss's coefficients.
        frozen: a reference that does not move and that the loss does not hold.
        follow: called after every gradient step; moves a reference.

    Raises:
        ConfigError: nothing is left to learn.
    """
    config = task.config
    optimizer = optimizer_of(config, network)
    actor = build_actor(task, network)
    return Agent(
        saved=Policies(loss, network, frozen, options.precision),
        loss=loss,
        forward=forward_of(loss, precision=options.precision, compiled=options.compile, device=config.device),
        parameters=learning(network),
        optimizer=optimizer,
        policy=actor.policy,
        act=actor.act,
        schedules=[*schedules, learning_rate_schedule(config.optimizer, optimizer)],
        precision=options.precision,
        max_grad_norm=options.max_grad_norm,
        updated=follow,
    )


def build_pair_loop(
    task: Task, run: Run, options: Options, build_agent: Callable[[Task, nn.Module], PairAgent]
) -> PreferenceLoop:
    """Build the loop: get pairs, stored ones or those of new trajectories, and learn from batches of them.

    Args:
        task: of the run.
        run: closes what is opened.
        options: the block of the algorithm.
        build_agent: of the algorithm.
    """
    config, source = task.config, task.config.pairs.source
    fresh: FreshPairs | None = None
    pop_episodes: Callable[[], list[Episode]] = list
    record: WorkerRecord | None = None
    match source:
        case OfflinePairs():
            agent = build_agent(task, run.network(task))
            pace = Pace(options.batch_size)
        case OnlinePairs() | MixedPairs():
            agent, players = build_agent_and_group_collector(task, run, build_agent, build_collector, source)
            stored_share = source.offline_fraction if isinstance(source, MixedPairs) else 0.0
            pace = Pace(options.batch_size, source.num_epochs, stored_share)
            fresh = build_fresh_pairs(task, options, source, players, run.ranks.agreed)
            pop_episodes = players.pop_episodes
            record = players.record
    network, policies = agent.policy.network, agent.saved
    stored = None if isinstance(source, OnlinePairs) else build_stored_pairs(task, options, source.path)
    return PreferenceLoop(
        agent.learner(),
        policies,
        build_batches(task, options, frozen=policies.frozen is not None),
        stored,
        fresh,
        observing_rollouts(network),
        agent.policy.greedy,
        pace,
        run.journal(task, agent, pop_episodes, workers=record),
        build_cloning(config, options, network),
    )


def build_cloning(config: RunConfig, options: Options, network: ActorCritic) -> Cloning | None:
    """Build the pretraining, with an optimiser of its own; None if the block has none."""
    pretraining = options.pretraining
    if pretraining is None:
        return None
    learner = cloning_learner(
        config,
        network,
        side=pretraining.data,
        precision=options.precision,
        max_grad_norm=options.max_grad_norm,
    )
    return Cloning(learner, pretraining.num_updates)


def cloning_learner(
    config: RunConfig,
    network: ActorCritic,
    *,
    side: Literal["chosen", "all"],
    precision: Precision,
    max_grad_norm: float | None,
) -> Learner:
    """Build the learner of behaviour cloning.

    Args:
        config: the whole configuration; its optimiser is used, at the learning rate of step 0.
        network: the policy.
        side: whose actions of a pair are cloned: ``"chosen"`` or ``"all"``.
        precision: of forward passes.
        max_grad_norm: see `Learner`.
    """
    loss = BehaviorCloningLoss(network, side=side)
    return Learner(
        loss=loss,
        forward=forward_of(loss, precision=precision, compiled=False, device=config.device),
        parameters=learning(network),
        optimizer=optimizer_of(config, network),
        max_grad_norm=max_grad_norm,
    )


def build_batches(task: Task, options: Options, *, frozen: bool) -> Batches:
    """Build the object that makes batches of the entries that the loss reads.

    Args:
        task: of the run.
        options: the block of the algorithm.
        frozen: whether the log-probabilities of a frozen reference are among them.
    """
    keys = entries_of(options, task.layout)
    if frozen:
        keys.append(REFERENCE)
    return Batches(keys, ranking=SCORE in keys, device=task.config.device)


def build_stored_pairs(task: Task, options: Options, path: str) -> StoredPairs:
    """Open a store of pairs.

    Args:
        task: of the run.
        options: the block of the algorithm.
        path: directory of the store.

    Raises:
        ConfigError: there is no store, or its pairs are not of this task.
    """
    config, layout = task.config, task.layout

    def prepare(stored: PreferencePairs) -> PreferencePairs:
        rewards = {"reward"} if options.value else set()
        keys = {*layout.keys, "action", *rewards}
        check_entries(stored.pool.blocks[0].steps, sorted(keys), layout.shapes, path)
        check_actions((block.steps for block in stored.pool.blocks), layout.mask, path)
        return _prepare(task, options, stored)

    try:
        return StoredPairs(path, prepare, holdout_fraction=config.pairs.holdout_fraction, seed=config.seed)
    except (StoreError, ValueError) as error:
        raise ConfigError(f"pairs.source.path: {error}") from error


def check_pairs(task: Task) -> None:
    """Open the store of pairs of a configuration that has one.

    Raises:
        ConfigError: there is no store, or its pairs are not of this task.
    """
    options, source = task.config.options, task.config.pairs.source
    if isinstance(options, Options) and not isinstance(source, OnlinePairs):
        build_stored_pairs(task, options, source.path)


def build_fresh_pairs(
    task: Task,
    options: Options,
    source: OnlinePairs | MixedPairs,
    collector: GroupCollecting,
    agreed: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> FreshPairs:
    """Build the object that makes pairs of new trajectories.

    Args:
        task: of the run.
        options: the block of the algorithm.
        source: the block that says how pairs are made.
        collector: plays groups.
        agreed: see `FreshPairs`.
    """
    teacher = source.teacher
    return FreshPairs(
        collector,
        lambda pairs: _prepare(task, options, pairs),
        num_groups=source.num_groups,
        same_start=source.same_start,
        segment_length=_segment_length(source.segments),
        num_pairs=source.pairs_per_iteration,
        discount=source.score_discount,
        min_margin=source.min_margin,
        ties=source.ties,
        teacher=None
        if teacher is None
        else ScriptedTeacher(
            beta=teacher.beta,
            discount=teacher.discount,
            skip=teacher.skip,
            equal=teacher.equal,
            mistake=teacher.mistake,
            bounds=teacher.bounds,
        ),
        buffer_size=source.buffer_size,
        holdout_fraction=task.config.pairs.holdout_fraction,
        agreed=agreed,
    )


def entries_of(options: Options, layout: ObservationLayout) -> list[str]:
    """Return the entries of each step that the loss reads."""
    keys = [*layout.keys, "action"]
    if options.value is not None:
        keys.append(VALUE_TARGET)
    if isinstance(options, CPLConfig) and options.comparison == "ranking":
        keys.append(SCORE)
    return keys


def _segment_length(segments: Segments) -> int | tuple[int, int] | None:
    match segments:
        case FixedSegments():
            return segments.length
        case VariableSegments():
            return segments.min_length, segments.max_length
        case EpisodeSegments():
            return None


def _prepare(task: Task, options: Options, pairs: PreferencePairs) -> PreferencePairs:
    source = task.config.pairs.source
    return with_entries(
        pairs,
        entries_of(options, task.layout),
        value_discount=None if options.value is None else options.value.discount,
        score_discount=1.0 if isinstance(source, OfflinePairs) else source.score_discount,
    )
