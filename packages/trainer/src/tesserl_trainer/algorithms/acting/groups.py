"""Build the policy and the collector of groups of trajectories from ``grpo:``, ``dpo:`` and ``cpl:``."""

from torch import nn

from tesserl_actor_critic import ActorCritic
from tesserl_collectors.groups import GroupCollector
from tesserl_collectors.rollout_policy import RolloutPolicy
from tesserl_configs import ConfigError
from tesserl_configs.grpo import GRPOConfig
from tesserl_configs.pairs import OfflinePairs
from tesserl_environments.making import Environments
from tesserl_trainer.algorithms.acting import rollouts
from tesserl_trainer.algorithms.agent import Actor
from tesserl_trainer.algorithms.groups import make_group_collector
from tesserl_trainer.algorithms.task import Task


def build_network(task: Task) -> ActorCritic:
    """Build the policy network.

    Raises:
        ConfigError: the baseline of the advantages needs an entry that the task's observations do not have.
    """
    config = task.config
    is_linear = isinstance(config.options, GRPOConfig) and config.options.advantages.baseline == "linear"
    if is_linear and "observation" not in task.layout.shapes:
        raise ConfigError(
            f"grpo.advantages.baseline: linear reads an observed vector, and {config.environment.id} has none; "
            "expected alive, zero_padded or leave_one_out"
        )
    return rollouts.build_network(task)


def build_actor(task: Task, network: nn.Module) -> Actor[RolloutPolicy]:
    """Build the policy around a network."""
    return rollouts.rollout_actor(task, network, record_values=False)


def build_collector(task: Task, actor: Actor[RolloutPolicy], environments: Environments) -> GroupCollector:
    """Build the collector of groups; runs on stored pairs do not use it."""
    options, source = task.config.options, task.config.pairs.source
    if isinstance(options, GRPOConfig):
        return make_group_collector(task, actor, environments, options)
    if isinstance(source, OfflinePairs):
        raise ValueError("pairs.source: expected kind online or both, got offline; stored pairs need no collector")
    return make_group_collector(task, actor, environments, source)
