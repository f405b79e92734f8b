"""Build what acts from ``ppo:``: the policy with its value, and the collector of rollouts."""

from torch import nn

from tesserl_actor_critic import ActorCritic
from tesserl_collectors.collector import Collector
from tesserl_collectors.rollout_policy import RolloutPolicy
from tesserl_environments.making import Environments
from tesserl_trainer.algorithms.acting.rollouts import rollout_actor
from tesserl_trainer.algorithms.agent import Actor
from tesserl_trainer.algorithms.run import make_collector
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.networks.building import build_policy_network


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
    """Build the policy around a network; it records the values that the network returns with its actions."""
    return rollout_actor(task, network, record_values=True)


def build_collector(task: Task, actor: Actor[RolloutPolicy], environments: Environments) -> Collector:
    """Build the collector of rollouts that hold the outputs of the network."""
    return make_collector(task, actor, environments, records=actor.policy.records)
