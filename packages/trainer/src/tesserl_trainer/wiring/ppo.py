"""``ppo:`` and an actor-critic network -> what acts and what learns."""

import functools
from typing import Any

from torch import nn
from torchrl.objectives import ClipPPOLoss

from tesserl_actor_critic import ActorCritic, PPOLoss
from tesserl_configs import RunConfig, value_at
from tesserl_trainer.run.policy import RolloutPolicy
from tesserl_trainer.run.schedule import Scheduled
from tesserl_trainer.wiring.learning import Algorithm, forward_of, learning_rate_schedule, optimizer_of, scheduled


def build_ppo(config: RunConfig, network: ActorCritic) -> Algorithm:
    """Builds everything that surrounds an actor-critic network.

    Args:
        config: the whole configuration.
        network: what ``build_network`` returned, on its device.

    Raises:
        ConfigError: nothing is left to learn.
    """
    ppo = config.ppo
    loss, schedules = _torchrl_loss(ppo, network) if ppo.loss == "torchrl" else _loss(ppo, network)
    optimizer = optimizer_of(config, network)
    policy = RolloutPolicy(network, record_values=network.critic_body is None)
    return Algorithm(
        saved=network,
        loss=loss,
        forward=forward_of(loss, precision=ppo.precision, compiled=ppo.compile, device=config.device),
        parameters=[parameter for parameter in network.parameters() if parameter.requires_grad],
        optimizer=optimizer,
        updated=lambda updates: None,  # noqa: ARG005 - nothing follows the network
        policy=policy,
        act=policy.act,
        schedules=[*schedules, learning_rate_schedule(config.optimizer, optimizer)],
    )


def _loss(ppo: Any, network: ActorCritic) -> tuple[nn.Module, list[Scheduled]]:
    loss = PPOLoss(
        network.actor,
        network.critic,
        clip_epsilon=value_at(ppo.clip_epsilon, 0),
        clip_epsilon_high=None if ppo.clip_epsilon_high is None else value_at(ppo.clip_epsilon_high, 0),
        dual_clip=ppo.dual_clip,
        value_clip=ppo.value_clip,
        value_loss=ppo.value_loss,
        value_coef=ppo.value_coef,
        entropy_coef=value_at(ppo.entropy_coef, 0),
        normalize_advantage=ppo.normalize_advantage,
    )
    names = ["clip_epsilon", "entropy_coef"]
    if ppo.clip_epsilon_high is not None:
        names.append("clip_epsilon_high")
    return loss, [scheduled(name, getattr(ppo, name), functools.partial(setattr, loss, name)) for name in names]


def _torchrl_loss(ppo: Any, network: ActorCritic) -> tuple[nn.Module, list[Scheduled]]:
    """Torchrl's own loss, with its constants mapped: its squared error has no factor 1/2."""
    loss = ClipPPOLoss(
        network.actor,
        network.critic,
        clip_epsilon=value_at(ppo.clip_epsilon, 0),
        entropy_coeff=value_at(ppo.entropy_coef, 0),
        critic_coeff=ppo.value_coef * (0.5 if ppo.value_loss == "l2" else 1.0),
        loss_critic_type=ppo.value_loss,
        normalize_advantage=ppo.normalize_advantage,
    )
    return loss, [
        scheduled("clip_epsilon", ppo.clip_epsilon, lambda value: loss.clip_epsilon.fill_(value)),
        scheduled("entropy_coef", ppo.entropy_coef, lambda value: loss.entropy_coeff.fill_(value)),
    ]
