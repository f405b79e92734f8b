"""Build the policy of rollouts and of groups of trajectories."""

from torch import nn

from tesserl_collectors.rollout_policy import RolloutPolicy
from tesserl_trainer.algorithms.agent import Actor
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.machine import device_of
from tesserl_trainer.networks.building import as_actor_critic


def rollout_actor(task: Task, network: nn.Module, *, record_values: bool) -> Actor[RolloutPolicy]:
    """Build the policy around an ``ActorCritic`` on the device; it records values that come with the actions."""
    actor_critic = as_actor_critic(network.to(device_of(task.config.device)), task.config.algorithm)
    policy = RolloutPolicy(actor_critic, record_values=record_values and actor_critic.critic_body is None)
    return Actor(policy, policy.act, [])
