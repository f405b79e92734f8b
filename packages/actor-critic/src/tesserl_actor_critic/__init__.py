"""Actor-critic networks around any body, PPO and generalised advantages, as PyTorch modules and a torchrl loss."""

from tesserl_actor_critic.__about__ import __version__
from tesserl_actor_critic.advantages import generalized_advantage_estimate
from tesserl_actor_critic.functional import clipped_surrogate_loss, clipped_value_loss
from tesserl_actor_critic.loss import PPOLoss
from tesserl_actor_critic.network import ActorCritic

__all__ = [
    "ActorCritic",
    "PPOLoss",
    "__version__",
    "clipped_surrogate_loss",
    "clipped_value_loss",
    "generalized_advantage_estimate",
]
