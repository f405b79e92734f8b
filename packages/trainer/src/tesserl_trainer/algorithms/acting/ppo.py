"""Build the policy with its value and the collector of rollouts from ``ppo:``."""

from torch import nn

from tesserl_collectors.collector import Collector
from tesserl_collectors.rollout_policy import RolloutPolicy
from tesserl_environments.making import Environments
from tesserl_trainer.algorithms.acting.rollouts import build_network, rollout_actor
from tesserl_trainer.algorithms.agent import Actor
from tesserl_trainer.algorithms.run import make_collector
from tesserl_trainer.algorithms.task import Task

__all__ = ["build_actor", "build_collector", "build_network"]


def build_actor(task: Task, network: nn.Module) -> Actor[RolloutPolicy]:
    """Build the policy around a network; it records the values that the network returns with its actions."""
    return rollout_actor(task, network, record_values=True)


def build_collector(task: Task, actor: Actor[RolloutPolicy], environments: Environments) -> Collector:
    """Build the collector of rollouts; each rollout includes the outputs of the network."""
    return make_collector(task, actor, environments, records=actor.policy.records)
