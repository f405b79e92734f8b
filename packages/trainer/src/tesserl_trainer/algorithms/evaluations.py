"""Build the player of evaluation episodes from ``evaluation:``, in this process or in a separate one."""

import functools
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from tesserl_collectors import processes
from tesserl_collectors.evaluation import Evaluation
from tesserl_collectors.evaluation_process import EvaluationProcess, check_evaluation, evaluation_name
from tesserl_collectors.shared_memory import SharedWeights
from tesserl_collectors.supervisor import Supervisor
from tesserl_configs import RunConfig
from tesserl_configs.limits import MOST_STEPS
from tesserl_configs.loader import as_data
from tesserl_environments import closed_afterwards
from tesserl_environments.registration import registered_maker
from tesserl_trainer.algorithms.agent import AnyAgent
from tesserl_trainer.algorithms.evaluation_worker import EvaluationWorker
from tesserl_trainer.algorithms.received_config import PASSED_ON
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.signals import Stopped
from tesserl_training.checkpoints.loading import load_module, require_state
from tesserl_training.evaluations import Player, PlayerHere


def build_player(task: Task, agent: AnyAgent, stack: ExitStack) -> Player:
    """Build the player of the evaluation episodes of a run, in the process that ``evaluation.process`` selects."""
    network = agent.policy.network
    if task.config.evaluation.process:
        return _start_process(task.config, network, stack)
    environments = stack.enter_context(closed_afterwards(task.evaluation_environments()))

    def play() -> Evaluation:
        with agent.policy.greedy() as policy:
            return task.evaluate(policy, environments)

    return PlayerHere(play, functools.partial(_other_weights, network))


def _start_process(config: RunConfig, network: nn.Module, stack: ExitStack) -> EvaluationProcess:
    """Start the evaluation process of a run."""
    weights = SharedWeights(network.state_dict(), processes.CONTEXT)
    # Without the rules of training, which pretraining may break: its number of steps is not the configuration's
    data = as_data(config) | {"total_steps": MOST_STEPS}
    make = functools.partial(EvaluationWorker, data, weights, registered_maker(config.environment.id))
    transport = processes.ProcessTransport(make, PASSED_ON, evaluation_name)
    supervisor = Supervisor(
        stack.enter_context(processes.closed_afterwards(transport, config.environment.worker_timeout, stopped=Stopped)),
        1,
        start_timeout=config.environment.start_timeout,
        worker_timeout=config.environment.worker_timeout,
        check=check_evaluation,
        name=evaluation_name,
    )
    supervisor.start()
    return EvaluationProcess(supervisor, weights, network, require_state)


@contextmanager
def _other_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Give a network other weights inside a ``with`` block."""
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    load_module(network, weights, "state: evaluation.weights")
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in network.state_dict().items():
                tensor.copy_(before[name])
