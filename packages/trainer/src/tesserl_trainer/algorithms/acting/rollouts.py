"""Build the network and the policy that play rollouts and groups of trajectories."""

from torch import nn

from tesserl_actor_critic import ActorCritic
from tesserl_collectors.rollout_policy import RolloutPolicy
from tesserl_configs.grpo import GRPOConfig
from tesserl_configs.ppo import PPOConfig
from tesserl_configs.preferences import PreferenceOptions
from tesserl_trainer.algorithms.agent import Actor
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.machine import device_of
from tesserl_trainer.networks.building import as_actor_critic, build_policy_network


def build_network(task: Task) -> ActorCritic:
    """Build the policy and its value on one shared body, or on two bodies if ``ppo`` asks for it."""
    options = task.config.options
    if not isinstance(options, PPOConfig | GRPOConfig | PreferenceOptions):
        raise TypeError(f"expected a run of ppo, grpo, dpo or cpl, got {task.config.algorithm}")
    return build_policy_network(
        task.config.nn,
        task.layout,
        task.action_space,
        distribution=options.distribution,
        shared_body=not isinstance(options, PPOConfig) or options.shared_body,
        orthogonal=options.orthogonal_init,
    )


def rollout_actor(task: Task, network: nn.Module, *, record_values: bool) -> Actor[RolloutPolicy]:
    """Build the policy around an ``ActorCritic`` on the device; with ``record_values`` it also records state values."""
    actor_critic = as_actor_critic(network.to(device_of(task.config.device)), task.config.algorithm)
    policy = RolloutPolicy(actor_critic, record_values=record_values and actor_critic.critic_body is None)
    return Actor(policy, policy.act, [])
