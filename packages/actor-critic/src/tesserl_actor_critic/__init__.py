"""Actor-critic networks around any body, PPO and generalised advantages, as PyTorch modules and a torchrl loss.

`PPOLoss` is imported on first use, so that a process that only acts does not import torchrl.
"""

from typing import TYPE_CHECKING, Any

from tesserl_actor_critic.__about__ import __version__
from tesserl_actor_critic.advantages import generalized_advantage_estimate
from tesserl_actor_critic.functional import clipped_surrogate_loss, clipped_value_loss
from tesserl_actor_critic.network import ActorCritic

if TYPE_CHECKING:
    from tesserl_actor_critic.loss import PPOLoss

__all__ = [
    "ActorCritic",
    "PPOLoss",
    "__version__",
    "clipped_surrogate_loss",
    "clipped_value_loss",
    "generalized_advantage_estimate",
]


def __getattr__(name: str) -> Any:
    if name != "PPOLoss":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tesserl_actor_critic.loss import PPOLoss

    return PPOLoss
