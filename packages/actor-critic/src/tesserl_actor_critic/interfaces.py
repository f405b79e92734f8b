"""Read the networks given to a loss: an `ActorCritic`, or modules of torchrl."""

from __future__ import annotations

from typing import Any

from tesserl_actor_critic.network import ActorCritic


def policy_and_value(actor: Any, critic: Any) -> tuple[Any, Any]:
    """Return the policy and the value of a loss: those of an `ActorCritic`, or torchrl's actor and critic as given."""
    if isinstance(actor, ActorCritic) and critic is None:
        return actor.actor, actor.critic
    if not hasattr(actor, "get_dist") or not hasattr(critic, "in_keys"):
        raise TypeError(
            "networks must be an ActorCritic, or a ProbabilisticActor and a TensorDictModule for the value, got "
            f"{type(actor).__name__} and {type(critic).__name__}"
        )
    if len(actor.dist_sample_keys) != 1:
        raise TypeError(
            f"actor_network must have one action, got {actor.dist_sample_keys}; use torchrl's ClipPPOLoss for several"
        )
    for name, network in (("actor_network", actor), ("critic_network", critic)):
        if next(network.parameters(), None) is None:
            raise TypeError(
                f"{name} must have parameters to train, got a module without any; build it around an nn.Module, not "
                "around a function"
            )
    return actor, critic
