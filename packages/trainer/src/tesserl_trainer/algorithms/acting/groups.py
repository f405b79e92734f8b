"""Build the policy and the collector of groups of trajectories from ``grpo:``, ``dpo:`` and ``cpl:``."""

from torch import nn

from tesserl_collectors.groups import GroupCollector
from tesserl_collectors.rollout_policy import RolloutPolicy
from tesserl_configs.grpo import GRPOConfig
from tesserl_configs.pairs import OfflinePairs
from tesserl_environments.making import Environments
from tesserl_trainer.algorithms.acting.rollouts import build_network, rollout_actor
from tesserl_trainer.algorithms.agent import Actor
from tesserl_trainer.algorithms.groups import make_group_collector
from tesserl_trainer.algorithms.task import Task

__all__ = ["build_actor", "build_collector", "build_network"]


def build_actor(task: Task, network: nn.Module) -> Actor[RolloutPolicy]:
    """Build the policy around a network."""
    return rollout_actor(task, network, record_values=False)


def build_collector(task: Task, actor: Actor[RolloutPolicy], environments: Environments) -> GroupCollector:
    """Build the collector of groups; runs on stored pairs do not use it."""
    options, source = task.config.options, task.config.pairs.source
    if isinstance(options, GRPOConfig):
        return make_group_collector(task, actor, environments, options)
    if isinstance(source, OfflinePairs):
        raise ValueError("pairs.source: expected kind online or both, got offline; stored pairs need no collector")
    return make_group_collector(task, actor, environments, source)
