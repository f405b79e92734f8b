"""Build the actor, the learner and the loop of an algorithm from its configuration; one module per algorithm."""

from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from torch import nn

from tesserl_configs.algorithms import declared

if TYPE_CHECKING:
    from tesserl_collectors.collector import Collector
    from tesserl_collectors.groups import GroupCollector
    from tesserl_environments.making import Environments
    from tesserl_trainer.algorithms.agent import AnyActor, AnyAgent
    from tesserl_trainer.algorithms.run import Run
    from tesserl_trainer.algorithms.task import Task
    from tesserl_training.journal import Loop


class ActorBuilder(Protocol):
    """Functions that build the acting side of an algorithm, from its module ``acting``, or ``builder`` without one."""

    def build_network(self, task: "Task") -> nn.Module:
        """Return the network that the algorithm trains, on the CPU."""

    def build_actor(self, task: "Task", network: nn.Module) -> "AnyActor":
        """Return the network with its acting functions; only modules ``acting`` define this."""

    def build_collector(
        self, task: "Task", actor: "AnyActor", environments: "Environments"
    ) -> "Collector | GroupCollector":
        """Return the collector of this process or a worker; for algorithms that declare ``process_collectors``."""


class Builder(Protocol):
    """Functions that the module ``builder`` of an algorithm defines in addition to those of `ActorBuilder`."""

    def build_agent(self, task: "Task", network: nn.Module) -> "AnyAgent":
        """Return the network with its loss, its optimiser and its acting functions."""

    def build_loop(self, task: "Task", run: "Run") -> "Loop":
        """Return the training loop at step 0, its log not yet open."""


def builder_of(algorithm: str) -> Builder:
    """Import the module that builds an algorithm."""
    return cast("Builder", import_module(declared(algorithm).builder))


def actor_builder_of(algorithm: str) -> ActorBuilder:
    """Import the module that builds the acting side of an algorithm."""
    found = declared(algorithm)
    return cast("ActorBuilder", import_module(found.acting or found.builder))
