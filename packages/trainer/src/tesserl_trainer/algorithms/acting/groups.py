"""Build what acts from ``grpo:``, ``dpo:`` and ``cpl:``: the policy, and the collector of groups of trajectories."""

from torch import nn

from tesserl_actor_critic import ActorCritic
from tesserl_collectors.groups import GroupCollector
from tesserl_collectors.rollout_policy import RolloutPolicy
from tesserl_configs.grpo import GRPOConfig
from tesserl_configs.pairs import OfflinePairs
from tesserl_configs.preferences import PreferenceOptions
from tesserl_environments.making import Environments
from tesserl_trainer.algorithms.acting.rollouts import rollout_actor
from tesserl_trainer.algorithms.agent import Actor
from tesserl_trainer.algorithms.groups import make_group_collector
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.networks.building import build_policy_network


def options_of(task: Task) -> GRPOConfig | PreferenceOptions:
    """Return the block of the algorithm.

    Raises:
        TypeError: it plays no groups.
    """
    options = task.config.options
    if not isinstance(options, GRPOConfig | PreferenceOptions):
        raise TypeError(f"expected a run of grpo, dpo or cpl, got {task.config.algorithm}")
    return options


def build_network(task: Task) -> ActorCritic:
    """Build the policy; it has a value too."""
    options = options_of(task)
    return build_policy_network(
        task.config.nn,
        task.layout,
        task.action_space,
        distribution=options.distribution,
        orthogonal=options.orthogonal_init,
    )


def build_actor(task: Task, network: nn.Module) -> Actor[RolloutPolicy]:
    """Build the policy around a network."""
    return rollout_actor(task, network, record_values=False)


def build_collector(task: Task, actor: Actor[RolloutPolicy], environments: Environments) -> GroupCollector:
    """Build the collector of groups; stored pairs need none."""
    options, source = options_of(task), task.config.pairs.source
    if isinstance(options, GRPOConfig):
        return make_group_collector(task, actor, environments, options)
    if isinstance(source, OfflinePairs):
        raise ValueError("pairs.source: expected kind online or both, got offline; stored pairs need no collector")
    return make_group_collector(task, actor, environments, source)
