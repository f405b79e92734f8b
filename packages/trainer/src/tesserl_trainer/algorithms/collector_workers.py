"""Start the collector workers of a run: processes of this machine, or actors of a Ray cluster."""

import functools
from contextlib import ExitStack

from torch import nn

from tesserl_collectors.process_collector import check_answer
from tesserl_collectors.processes import CONTEXT, Make, ProcessTransport, closed_afterwards
from tesserl_collectors.shared_memory import SharedWeights
from tesserl_collectors.supervisor import Supervisor
from tesserl_collectors.weights import LoadedWeights, SentWeights, Weights
from tesserl_configs import ConfigError, RunConfig
from tesserl_configs.collectors import ProcessCollectors, RayCollectors
from tesserl_configs.loader import as_data
from tesserl_environments.registration import registered_maker
from tesserl_trainer.algorithms.collector_worker import CollectorWorker
from tesserl_trainer.algorithms.received_config import PASSED_ON
from tesserl_trainer.signals import Stopped


def start_workers(
    config: RunConfig, block: ProcessCollectors | RayCollectors, stack: ExitStack, network: nn.Module, *, groups: bool
) -> tuple[Supervisor, Weights]:
    """Start the workers of a run; return the object that queries them and the object that sends them weights."""
    if isinstance(block, ProcessCollectors):
        return _start_processes(config, block, stack, network)
    return _start_actors(config, block, stack, groups=groups)


def lends_generators(block: ProcessCollectors | RayCollectors) -> bool:
    """Return whether a single worker uses the learner's random generators, which reproduces a run without workers."""
    return isinstance(block, ProcessCollectors) and block.mode == "fixed" and block.delay == 0 and block.workers == 1


def _start_processes(
    config: RunConfig, block: ProcessCollectors, stack: ExitStack, network: nn.Module
) -> tuple[Supervisor, Weights]:
    """Start worker processes of this machine; a lost one is an error."""
    is_free = block.mode == "async"
    weights = SharedWeights(network.state_dict(), CONTEXT, copies=2 if is_free else 1)
    transport = ProcessTransport(_maker(config, block, weights), PASSED_ON)
    stack.enter_context(closed_afterwards(transport, config.environment.worker_timeout, stopped=Stopped))
    supervisor = Supervisor(
        transport,
        block.workers,
        start_timeout=config.environment.start_timeout,
        worker_timeout=config.environment.worker_timeout,
        repeats=not is_free,
        check=check_answer(config.environment.num_envs // block.workers),
    )
    if not is_free:  # otherwise a resume first tells each worker how often it was replaced
        supervisor.start()
    return supervisor, weights


def _start_actors(
    config: RunConfig, block: RayCollectors, stack: ExitStack, *, groups: bool
) -> tuple[Supervisor, Weights]:
    """Connect to a cluster; its actors start at the first query."""
    try:
        from tesserl_collectors.ray_cluster import ray_cluster, require_cpus
        from tesserl_collectors.ray_transport import RayTransport, RayWeights
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "ray":
            raise
        raise ConfigError(
            'collectors.kind: needs Ray, which is not installed; install "tesserl-trainer[ray]"'
        ) from error
    stack.enter_context(ray_cluster(block.address, block.workers))
    require_cpus(block.workers)
    received, weights = SentWeights(), RayWeights()
    transport = RayTransport(_maker(config, block, received), received, weights, PASSED_ON)
    timeout = min(block.worker_timeout, config.environment.worker_timeout)
    stack.enter_context(closed_afterwards(transport, timeout, stopped=Stopped))
    supervisor = Supervisor(
        transport,
        block.workers,
        start_timeout=block.start_timeout,
        worker_timeout=block.worker_timeout,
        max_restarts=block.max_restarts,
        repeats=block.mode == "sync",
        replays=groups,
        fatal=(ConfigError,),
        block="collectors",
        check=check_answer(config.environment.num_envs // block.workers),
    )
    return supervisor, weights


def _maker(config: RunConfig, block: ProcessCollectors | RayCollectors, weights: LoadedWeights) -> Make:
    """Return the function that creates the answering object inside a worker."""
    maker, keyed = registered_maker(config.environment.id), not lends_generators(block)
    return functools.partial(CollectorWorker, as_data(config), block.workers, weights, maker, keyed)
