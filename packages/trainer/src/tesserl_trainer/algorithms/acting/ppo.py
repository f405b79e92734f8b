"""Build what acts from ``ppo:``: the policy with its value, and the collector of rollouts."""

from torch import nn

from tesserl_actor_critic import ActorCritic
from tesserl_collectors.collector import Collector
from tesserl_collectors.rollout_policy import RolloutPolicy
from tesserl_environments.making import Environments
from tesserl_trainer.algorithms.agent import Actor
from tesserl_trainer.algorithms.run import make_collector
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.machine import device_of
from tesserl_trainer.networks.building import as_actor_critic, build_policy_network


def build_network(task: Task) -> ActorCritic:
    """Build the policy and its value, together or each with a body of its own."""
    ppo = task.config.ppo
    return build_policy_network(
        task.config.nn,
        task.layout,
        task.action_space,
        distribution=ppo.distribution,
        shared_body=ppo.shared_body,
        orthogonal=ppo.orthogonal_init,
    )


def build_actor(task: Task, network: nn.Module) -> Actor[RolloutPolicy]:
    """Build the policy around a network; it records the values that the network returns with its actions.

    Args:
        task: of the run.
        network: an ``ActorCritic``; it is moved to the device.

    Raises:
        ConfigError: the device is not there.
        TypeError: the network is another one.
    """
    actor_critic = as_actor_critic(network.to(device_of(task.config.device)), task.config.algorithm)
    policy = RolloutPolicy(actor_critic, record_values=actor_critic.critic_body is None)
    return Actor(policy, policy.act, [])


def build_collector(task: Task, actor: Actor[RolloutPolicy], environments: Environments) -> Collector:
    """Build the collector of rollouts that hold the outputs of the network."""
    return make_collector(task, actor, environments, records=actor.policy.records)
