"""Build, check and initialise the heads of an actor-critic network."""

from __future__ import annotations

from typing import Any, Literal, cast

from torch import nn
from torch.distributions import Distribution

from tesserl_actor_critic.distributions import Categorical, DiagonalNormal, MultiCategorical, TanhNormal
from tesserl_actor_critic.spaces import ContinuousActions, DiscreteActions
from tesserl_nn_components import CategoricalHead, GaussianHead, MultiCategoricalHead, orthogonal_init, require_body


def check_bodies(body: nn.Module, critic_body: nn.Module | None) -> None:
    """Reject modules that are not bodies, and two bodies with different inputs."""
    require_body(body)
    if critic_body is None:
        return
    require_body(critic_body)
    if getattr(body, "state_keys", ()) or getattr(critic_body, "state_keys", ()):
        raise ValueError("a recurrent body must be shared by actor and critic, got a critic_body too; leave it out")
    keys, critic_keys = list(cast("list[str]", body.in_keys)), list(cast("list[str]", critic_body.in_keys))
    if keys != critic_keys:
        raise ValueError(f"critic_body must have the in_keys of body {keys}, got {critic_keys}")


def check_shared(shared: nn.Module | None, critic_body: nn.Module | None) -> None:
    """Reject shared layers without ``out_features``, and shared layers together with a separate critic body."""
    if shared is None:
        return
    if not hasattr(shared, "out_features"):
        raise TypeError(
            f"shared must have out_features, got {type(shared).__name__} without it; "
            "use an MLP without an output layer, or set shared.out_features, the width of its output"
        )
    if critic_body is not None:
        raise ValueError(
            "shared layers stand behind a body that policy and value share, got a critic_body too; "
            "leave one of the two out"
        )


def make_policy_head(in_features: int, actions: DiscreteActions | ContinuousActions, head: dict[str, Any]) -> nn.Module:
    """Return the policy head for an action space; ``head`` has the options of a head of nn-components."""
    if isinstance(actions, ContinuousActions):
        return GaussianHead(in_features, len(actions.low), **head)
    if actions.scalar or actions.num_blocks is not None:
        return CategoricalHead(in_features, actions.nvec[0], num_blocks=actions.num_blocks, **head)
    return MultiCategoricalHead(in_features, actions.nvec, **head)


def select_distribution(
    actions: DiscreteActions | ContinuousActions, name: Literal["normal", "tanh_normal"]
) -> tuple[type[Distribution], dict[str, Any]]:
    """Return the class of the distribution and its arguments besides the parameters."""
    if isinstance(actions, ContinuousActions):
        return (DiagonalNormal if name == "normal" else TanhNormal), {}
    if actions.scalar or actions.num_blocks is not None:
        return Categorical, {"blocks": not actions.scalar}
    return MultiCategorical, {"nvec": actions.nvec}


def initialize_head(head: nn.Module, last: Literal["policy", "value"] | None = None) -> None:
    """Initialise layers orthogonally with the gain of their activation, and the last layer with the gain ``last``."""
    has_tanh = any(isinstance(module, nn.Tanh) for module in head.modules())
    orthogonal_init(head, "tanh" if has_tanh else "relu")
    layers = [module for module in head.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    if layers and last is not None:
        orthogonal_init(layers[-1], last)
