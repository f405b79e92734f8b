"""Build the collector from ``collectors:``: in this process, in worker processes, or on a cluster."""

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from tesserl_collectors.collector import Collector
from tesserl_collectors.free_collector import FreeCollector
from tesserl_collectors.groups import GroupCollector
from tesserl_collectors.interfaces import Collecting, GroupCollecting
from tesserl_collectors.process_collector import Observe, ProcessCollector, ProcessGroupCollector
from tesserl_collectors.supervisor import Supervisor
from tesserl_collectors.weights import Weights
from tesserl_collectors.workers import Workers
from tesserl_configs.collectors import LocalCollectors, ProcessCollectors, RayCollectors
from tesserl_environments.making import Environments
from tesserl_trainer.algorithms.agent import Agent, Policy
from tesserl_trainer.algorithms.collector_workers import lends_generators, start_workers
from tesserl_trainer.algorithms.groups import GroupOptions, require_ends, training_environments
from tesserl_trainer.algorithms.run import Run
from tesserl_trainer.algorithms.task import Task
from tesserl_training.shared_groups import SharedGroupCollector

AgentT = TypeVar("AgentT", bound=Agent[Policy, nn.Module, nn.Module])
Build = Callable[[Task, nn.Module], AgentT]
"""Builds an agent around a network."""


def build_agent_and_collector(
    task: Task,
    run: Run,
    build_agent: Build[AgentT],
    build_collector: Callable[[Task, AgentT, Environments], Collector],
    *,
    observe: Callable[[AgentT], Observe] | None = None,
    updates_of: Callable[[int], float] | None = None,
) -> tuple[AgentT, Collecting]:
    """Build the agent of a run and its collector of batches, from the block ``collectors``.

    Args:
        task: of the run.
        run: closes environments and processes at the end.
        build_agent: builds the agent around a network.
        build_collector: builds the collector of one process.
        observe: returns the function that updates the learner's running statistics with a batch of the workers; None
            if acting does not update any.
        updates_of: returns the updates due for a number of environment steps; for algorithms with a replay.
    """
    config, block = task.config, task.config.collectors
    if isinstance(block, LocalCollectors):
        environments = run.keep(training_environments(task))
        agent = build_agent(task, run.network(task))
        return agent, build_collector(task, agent, environments)
    agent = build_agent(task, run.network(task))
    update, num_envs = None if observe is None else observe(agent), config.environment.num_envs
    supervisor, weights = start_workers(config, block, run.stack, agent.policy.network, groups=False)
    if block.mode == "async" and updates_of is not None:
        return agent, FreeCollector(
            supervisor,
            weights,
            agent.policy.network,
            num_envs,
            max_lag=block.max_lag,
            updates_of=updates_of,
            observe=update,
        )
    return agent, ProcessCollector(_in_rounds(block, supervisor, weights, agent.policy.network), num_envs, update)


def build_agent_and_group_collector(
    task: Task,
    run: Run,
    build_agent: Build[AgentT],
    build_collector: Callable[[Task, AgentT, Environments], GroupCollector],
    options: GroupOptions,
) -> tuple[AgentT, GroupCollecting]:
    """Build the agent of a run and its collector of groups, from the block ``collectors``."""
    config, block = task.config, task.config.collectors
    if isinstance(block, LocalCollectors):
        environments = run.keep(training_environments(task))
        agent = build_agent(task, run.network(task))
        collector = build_collector(task, agent, environments)
        collector.on_note = run.progress.note
        return agent, collector if run.ranks.number == 1 else SharedGroupCollector(run.ranks, collector)
    require_ends(task, options)
    agent = build_agent(task, run.network(task))
    network = agent.policy.network
    supervisor, weights = start_workers(config, block, run.stack, network, groups=True)
    return agent, ProcessGroupCollector(_in_rounds(block, supervisor, weights, network), task.layout.keys)


def _in_rounds(
    block: ProcessCollectors | RayCollectors, supervisor: Supervisor, weights: Weights, network: nn.Module
) -> Workers:
    """Return one object that collects rounds from all workers, one round after the other."""
    delay = block.delay if isinstance(block, ProcessCollectors) else 0
    return Workers(supervisor, weights, network, delay=delay, lends_generators=lends_generators(block))
