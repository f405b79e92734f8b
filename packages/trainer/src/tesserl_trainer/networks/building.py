"""Build networks from ``nn:`` and the spaces of the task."""

from typing import Any

from gymnasium import spaces
from torch import nn

from tesserl_actor_critic import ActorCritic
from tesserl_configs import ConfigError, RunConfig
from tesserl_configs.base import Absent
from tesserl_configs.nn import HeadsConfig, NNConfig
from tesserl_configs.policy import Distribution
from tesserl_environments import ObservationLayout
from tesserl_iqn import QuantileNetwork
from tesserl_nn_components import orthogonal_init, width_of
from tesserl_trainer.networks.bodies import build_body
from tesserl_trainer.networks.heads import build_policy_head, build_quantile_head, build_shared_layers, build_value_head
from tesserl_trainer.networks.named_parts import find_module, freeze_parts, modules_of_body
from tesserl_trainer.networks.parts import named


def build_quantile_network(
    config: RunConfig, layout: ObservationLayout, num_actions: int, num_blocks: int | None = None
) -> QuantileNetwork:
    """Build a quantile network.

    Args:
        config: the whole configuration; ``nn`` and ``iqn`` are read.
        layout: observation keys of the task, with their shapes.
        num_actions: number ``A`` of actions of each block.
        num_blocks: number ``N`` of action blocks; None for one action.

    Returns:
        The network, with the parts that ``nn.freeze`` names frozen.

    Raises:
        ConfigError: the configuration and the sizes do not fit together.
    """
    network = quantile_network(
        config.nn.heads,
        build_body(config.nn, layout),
        num_actions,
        num_blocks=num_blocks,
        num_cosines=config.iqn.num_cosines,
        cosine_start=config.iqn.cosine_start,
        cosine_activation=config.iqn.cosine_activation,
        num_fixed_quantiles=config.iqn.num_fixed_quantiles,
    )
    freeze_parts(network, config.nn.freeze)
    return network


def quantile_network(
    heads: HeadsConfig,
    body: nn.Module,
    num_actions: int,
    *,
    num_blocks: int | None = None,
    num_fixed_quantiles: int | None = None,
    **options: Any,
) -> QuantileNetwork:
    """Add quantile heads to a body; ``options`` are the options of the embedding in ``QuantileNetwork``."""
    if heads == HeadsConfig(hidden_sizes=heads.hidden_sizes, dueling=heads.dueling, noisy=heads.noisy):
        head: dict[str, Any] = {"hidden_sizes": heads.hidden_sizes, "dueling": heads.dueling, "noisy": heads.noisy}
    else:  # beyond the built-in head of QuantileNetwork
        slots = num_blocks if num_fixed_quantiles is None else num_fixed_quantiles * (num_blocks or 1)
        head = {"head": build_quantile_head(heads, width_of(body), num_actions, slots)}
    return QuantileNetwork(
        body, num_actions, num_blocks=num_blocks, num_fixed_quantiles=num_fixed_quantiles, **options, **head
    )


def build_policy_network(
    config: NNConfig,
    layout: ObservationLayout,
    action_space: spaces.Space[Any],
    *,
    distribution: Distribution | None = None,
    shared_body: bool = True,
    orthogonal: bool = True,
) -> ActorCritic:
    """Build a policy and its value.

    Args:
        config: the ``nn:`` block.
        layout: observation keys of the task, with their shapes.
        action_space: of one environment: Discrete, MultiDiscrete or Box.
        distribution: of continuous actions; None: a Gaussian of scale 1.
        shared_body: one body for policy and value; otherwise two bodies with the same options.
        orthogonal: use orthogonal weights and zero biases in the heads and in every encoder that is not pretrained.

    Returns:
        The network, with the parts that ``nn.freeze`` names frozen.

    Raises:
        ConfigError: the configuration and the spaces do not fit together.
    """
    if config.heads.shared_hidden_sizes and not shared_body:
        raise ConfigError(
            "nn.heads.shared_hidden_sizes: policy and value share hidden layers behind one body, got a body for each; "
            "set ppo.shared_body to true, or remove the key"
        )
    bodies = [build_body(config, layout) for _ in range(1 if shared_body else 2)]
    if orthogonal:
        for body in bodies:
            initialize_body(config, body)
    network = policy_network(
        config.heads,
        bodies[0],
        action_space,
        distribution=distribution,
        critic_body=None if shared_body else bodies[1],
        orthogonal=orthogonal,
        masked=layout.mask is not None,
    )
    freeze_parts(network, config.freeze)
    return network


def policy_network(
    heads: HeadsConfig,
    body: nn.Module,
    action_space: spaces.Space[Any],
    *,
    distribution: Distribution | None = None,
    critic_body: nn.Module | None = None,
    orthogonal: bool = True,
    masked: bool = False,
) -> ActorCritic:
    """Add the heads of a policy and its value to one body, or to one body each."""
    distribution = distribution or Distribution(kind="normal")
    shared = build_shared_layers(heads, width_of(body))
    width = width_of(body) if shared is None else shared.out_features
    policy = build_policy_head(heads, width, action_space, distribution)
    with named("environment.id", ValueError):
        return ActorCritic(
            body,
            action_space=action_space,
            critic_body=critic_body,
            shared=shared,
            policy_head=policy,
            value_head=build_value_head(heads, width),
            distribution=distribution.kind,
            orthogonal=orthogonal,
            masked=masked,
        )


def initialize_body(config: NNConfig, body: nn.Module) -> None:
    """Give convolutions and perceptrons orthogonal weights; transformers and pretrained parts keep theirs."""
    trunk = "none" if isinstance(config.fusion, Absent) else config.fusion.trunk.kind
    kinds: dict[str, str] = {"vision": config.vision.kind, "vector": config.vector.kind, "trunk": trunk}
    parts = modules_of_body(body)
    for name, kind in kinds.items():
        if kind in ("cnn", "impala", "mlp", "linear"):
            for path in parts[name]:
                part = find_module(body, path)
                if part is not None:
                    orthogonal_init(part)


def as_actor_critic(network: nn.Module, algorithm: str) -> ActorCritic:
    """Return the network with its static type; a network of another class is an error of the caller."""
    if not isinstance(network, ActorCritic):
        raise TypeError(f"{algorithm} does not train a {type(network).__name__}; build the network with build_network")
    return network
