"""``collectors:`` -> collecting in this process, or in worker processes."""

import functools
from collections.abc import Callable
from typing import TypeVar

from torch import nn

from tesserl_configs import ConfigError, RunConfig
from tesserl_configs.collectors import ProcessCollectors
from tesserl_configs.loader import as_data
from tesserl_environments import TaskError, WorkerError
from tesserl_environments.making import Environments, registered_maker
from tesserl_trainer.algorithms.agent import Agent, Policy
from tesserl_trainer.algorithms.collector_worker import CollectorWorker
from tesserl_trainer.algorithms.run import GroupOptions, Run, require_ends, training_environments
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.collecting.collector import Collector
from tesserl_trainer.collecting.groups import GroupCollector
from tesserl_trainer.collecting.interfaces import Collecting, GroupCollecting
from tesserl_trainer.distributed.process_collector import (
    Observe,
    ProcessCollector,
    ProcessGroupCollector,
    check_answer,
)
from tesserl_trainer.distributed.processes import CONTEXT, ProcessTransport, closed_afterwards
from tesserl_trainer.distributed.shared_memory import SharedWeights
from tesserl_trainer.distributed.supervisor import Supervisor
from tesserl_trainer.distributed.workers import Workers
from tesserl_trainer.ranks.groups import SharedGroupCollector

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
) -> tuple[AgentT, Collecting]:
    """Build the agent of a run and what collects batches for it, as ``collectors`` says.

    Args:
        task: of the run.
        run: closes environments and processes.
        build_agent: builds the agent around a network.
        build_collector: builds the collector of one process.
        observe: returns the function that updates the learner's running statistics with a batch of the workers; None
            if acting does not update any.
    """
    config = task.config
    if isinstance(config.collectors, ProcessCollectors):
        agent = build_agent(task, run.network(task))
        workers = _start_workers(config, config.collectors, run, agent.policy.network)
        update = None if observe is None else observe(agent)
        return agent, ProcessCollector(workers, config.environment.num_envs, update)
    environments = run.keep(training_environments(task))
    agent = build_agent(task, run.network(task))
    return agent, build_collector(task, agent, environments)


def build_agent_and_group_collector(
    task: Task,
    run: Run,
    build_agent: Build[AgentT],
    build_collector: Callable[[Task, AgentT, Environments], GroupCollector],
    options: GroupOptions,
) -> tuple[AgentT, GroupCollecting]:
    """Build the agent of a run and what plays groups for it, as ``collectors`` says.

    Args:
        task: of the run.
        run: closes environments and processes.
        build_agent: builds the agent around a network.
        build_collector: builds the collector of one process.
        options: the block that says how groups start.

    Raises:
        ConfigError: nothing limits the length of an episode.
    """
    config = task.config
    if isinstance(config.collectors, ProcessCollectors):
        require_ends(task, options)
        agent = build_agent(task, run.network(task))
        workers = _start_workers(config, config.collectors, run, agent.policy.network)
        return agent, ProcessGroupCollector(workers, task.layout.keys)
    environments = run.keep(training_environments(task))
    agent = build_agent(task, run.network(task))
    collector = build_collector(task, agent, environments)
    collector.on_note = run.progress.note
    return agent, collector if run.ranks.number == 1 else SharedGroupCollector(run.ranks, collector)


def _start_workers(config: RunConfig, block: ProcessCollectors, run: Run, network: nn.Module) -> Workers:
    """Start the worker processes of a run."""
    weights = SharedWeights(network.state_dict(), CONTEXT)
    maker = registered_maker(config.environment.id)
    make = functools.partial(CollectorWorker, as_data(config), block.workers, weights, maker)
    transport = ProcessTransport(make, (ConfigError, TaskError, WorkerError))
    supervisor = Supervisor(
        run.stack.enter_context(closed_afterwards(transport, config.environment.worker_timeout)),
        block.workers,
        start_timeout=config.environment.start_timeout,
        worker_timeout=config.environment.worker_timeout,
        check=check_answer(config.environment.num_envs // block.workers),
    )
    supervisor.start()
    lends = block.delay == 0 and block.workers == 1
    return Workers(supervisor, weights, network, delay=block.delay, lends_generators=lends)
