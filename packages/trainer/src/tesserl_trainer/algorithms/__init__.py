"""From the block of an algorithm to what acts, what learns and its loop: one module for each algorithm."""

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
    """The functions of an algorithm that build what acts: in the module ``acting``, or the ``builder`` without one."""

    def build_network(self, task: "Task") -> nn.Module:
        """Return the network that the algorithm trains, on the CPU."""

    def build_actor(self, task: "Task", network: nn.Module) -> "AnyActor":
        """Return the network with its ways to act; in a module ``acting`` alone."""

    def build_collector(
        self, task: "Task", actor: "AnyActor", environments: "Environments"
    ) -> "Collector | GroupCollector":
        """Return what collects, here or in a worker process; for algorithms that declare ``process_collectors``."""


class Builder(Protocol):
    """The functions that the module ``builder`` of an algorithm defines, beside those of `ActorBuilder`."""

    def build_agent(self, task: "Task", network: nn.Module) -> "AnyAgent":
        """Return the network with its loss, its optimiser and its ways to act."""

    def build_loop(self, task: "Task", run: "Run") -> "Loop":
        """Return the training loop at step 0, its log not yet open."""


def builder_of(algorithm: str) -> Builder:
    """Import the module that builds an algorithm."""
    return cast("Builder", import_module(declared(algorithm).builder))


def actor_builder_of(algorithm: str) -> ActorBuilder:
    """Import the module that builds what acts for an algorithm."""
    found = declared(algorithm)
    return cast("ActorBuilder", import_module(found.acting or found.builder))
