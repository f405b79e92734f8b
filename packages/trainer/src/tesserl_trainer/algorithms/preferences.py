"""Build the agent, the pairs and the loop of all algorithms that learn from preference pairs."""

from collections.abc import Callable
from typing import Literal

from torch import nn

from tesserl_actor_critic import ActorCritic
from tesserl_collectors.collector import Episode
from tesserl_collectors.interfaces import WorkerRecord
from tesserl_collectors.rollout_policy import RolloutPolicy
from tesserl_configs import RunConfig
from tesserl_configs.pairs import (
    MixedPairs,
    OfflinePairs,
    OnlinePairs,
)
from tesserl_configs.policy import Precision
from tesserl_policy import ReferencePolicy
from tesserl_preference_opt import BehaviorCloningLoss
from tesserl_trainer.algorithms.acting.groups import build_actor, build_collector
from tesserl_trainer.algorithms.agent import Agent, agent_of, forward_of, learning, nothing, observing_rollouts
from tesserl_trainer.algorithms.collectors import build_agent_and_group_collector
from tesserl_trainer.algorithms.optimizers import optimizer_of
from tesserl_trainer.algorithms.pairs import Options, build_batches, build_fresh_pairs, build_stored_pairs
from tesserl_trainer.algorithms.run import Run
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.machine import device_of
from tesserl_trainer.networks.building import as_actor_critic
from tesserl_training.cloning import Cloning
from tesserl_training.learner import Learner
from tesserl_training.loops.preferences import Pace, PreferenceLoop
from tesserl_training.pair_sources import FreshPairs
from tesserl_training.reference_policies import Policies
from tesserl_training.schedule import Scheduled

PairAgent = Agent[RolloutPolicy, nn.Module, Policies]


def placed(task: Task, options: Options, network: nn.Module) -> ActorCritic:
    """Move a network to its device; freeze its value unless the block has a ``value``."""
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
    """Build optimiser and policy around a network from `placed`; ``follow`` moves a reference after each step."""
    saved = Policies(loss, network, frozen, options.precision)
    return agent_of(task.config, options, build_actor(task, network), loss, saved, schedules=schedules, updated=follow)


def build_pair_loop(
    task: Task, run: Run, options: Options, build_agent: Callable[[Task, nn.Module], PairAgent]
) -> PreferenceLoop:
    """Build the loop: get stored pairs or pairs of new trajectories, and learn from batches of them."""
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
    """Build the pretraining with a separate optimiser; None if the block has no pretraining."""
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
    """Build the learner of behaviour cloning, with the configuration's optimiser at the learning rate of step 0."""
    loss = BehaviorCloningLoss(network, side=side)
    return Learner(
        loss=loss,
        forward=forward_of(loss, precision=precision, compiled=False, device=config.device),
        parameters=learning(network),
        optimizer=optimizer_of(config, network),
        max_grad_norm=max_grad_norm,
    )
