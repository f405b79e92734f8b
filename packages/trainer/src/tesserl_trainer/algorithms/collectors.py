"""``collectors:`` -> collecting in this process, or in worker processes."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import nn

from tesserl_configs import ConfigError, RunConfig
from tesserl_configs.collectors import ProcessCollectors
from tesserl_configs.loader import as_data
from tesserl_environments import TaskError, WorkerError
from tesserl_environments.making import Environments
from tesserl_trainer.algorithms.agent import Agent, Policy
from tesserl_trainer.algorithms.collector_worker import CollectorWorker
from tesserl_trainer.algorithms.run import Run
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.collecting.collector import Collecting, Collector
from tesserl_trainer.distributed.process_collector import Observe, ProcessCollector, check_answer
from tesserl_trainer.distributed.processes import CONTEXT, ProcessTransport
from tesserl_trainer.distributed.shared_memory import SharedWeights
from tesserl_trainer.distributed.supervisor import Supervisor

AgentT = TypeVar("AgentT", bound=Agent[Policy, nn.Module, nn.Module])


def build_agent_and_collector(
    task: Task,
    run: Run,
    build_agent: Callable[[Task, nn.Module], AgentT],
    build_collector: Callable[[Task, AgentT, Environments], Collector],
    *,
    observe: Callable[[AgentT], Observe] | None = None,
) -> tuple[AgentT, Collecting]:
    """Build the agent of a run and what collects for it, as ``collectors`` says.

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
        update = None if observe is None else observe(agent)
        return agent, _process_collector(config, config.collectors, run, agent.policy.network, update)
    environments = run.keep(task.environments(config.environment.num_envs))
    agent = build_agent(task, run.network(task))
    return agent, build_collector(task, agent, environments)


def _process_collector(
    config: RunConfig, block: ProcessCollectors, run: Run, network: nn.Module, observe: Observe | None
) -> ProcessCollector:
    """Start the workers, and return the collector that asks them."""
    num_envs = config.environment.num_envs
    weights = SharedWeights(network.state_dict(), CONTEXT)
    make = functools.partial(CollectorWorker, as_data(config), block.workers, weights)
    supervisor = Supervisor(
        run.stack.enter_context(_closed(ProcessTransport(make, (ConfigError, TaskError, WorkerError)))),
        block.workers,
        start_timeout=config.environment.start_timeout,
        worker_timeout=config.environment.worker_timeout,
        check=check_answer(num_envs // block.workers),
    )
    supervisor.start()
    return ProcessCollector(
        supervisor,
        weights,
        network,
        num_envs,
        delay=block.delay,
        observe=observe,
        lends_generators=block.delay == 0 and block.workers == 1,
    )


@contextmanager
def _closed(transport: ProcessTransport) -> Iterator[ProcessTransport]:
    """End the worker processes with the run; at once after an error."""
    failed = True
    try:
        yield transport
        failed = False
    finally:
        transport.close(failed=failed)
