"""``nn:`` and the spaces of the task -> a network. Which network is built is decided here and nowhere else."""

from collections.abc import Iterable
from typing import Any, cast

from gymnasium import spaces
from torch import Tensor, nn

from tesserl_configs import ConfigError, RunConfig
from tesserl_configs.nn import HeadsConfig, LearningRateFactors, NNConfig
from tesserl_iqn import QuantileNetwork
from tesserl_nn_components import freeze, parameter_groups
from tesserl_trainer.run.observations import ObservationLayout
from tesserl_trainer.wiring.bodies import build_body
from tesserl_trainer.wiring.environments import discrete_actions
from tesserl_trainer.wiring.heads import build_policy_head, build_quantile_head, build_value_head


def build_network(
    config: RunConfig, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
) -> nn.Module:
    """Builds the network of a run.

    Args:
        config: the whole configuration.
        observation_space: of one environment.
        action_space: of one environment.

    Returns:
        A ``QuantileNetwork``, with the parts that ``nn.freeze`` names frozen.

    Raises:
        ConfigError: the configuration and the spaces do not fit together.
    """
    layout = make_layout(config, observation_space)
    num_actions, num_blocks = discrete_actions(action_space)
    return build_quantile_network(config, layout, num_actions, num_blocks)


def build_quantile_network(
    config: RunConfig, layout: ObservationLayout, num_actions: int, num_blocks: int | None = None
) -> QuantileNetwork:
    """Builds a quantile network.

    Args:
        config: the whole configuration; ``nn`` and ``iqn`` are read.
        layout: the keys that the task's observations yield.
        num_actions: actions ``A``, of each block.
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
    )
    freeze_parts(network, config.nn.freeze)
    return network


def quantile_network(
    heads: HeadsConfig, body: nn.Module, num_actions: int, *, num_blocks: int | None = None, **options: Any
) -> QuantileNetwork:
    """Puts quantile heads on a body.

    Args:
        heads: the ``heads:`` block.
        body: what ``build_body`` returned.
        num_actions: actions ``A``, of each block.
        num_blocks: number ``N`` of action blocks; None for one action.
        **options: ``num_cosines`` and ``cosine_start`` of ``QuantileNetwork``.
    """
    if heads == HeadsConfig(hidden_sizes=heads.hidden_sizes, dueling=heads.dueling, noisy=heads.noisy):
        head: dict[str, Any] = {name: getattr(heads, name) for name in ("hidden_sizes", "dueling", "noisy")}
    else:  # more than the algorithm's own head can do
        head = {"head": build_quantile_head(heads, _width(body), num_actions, num_blocks)}
    return QuantileNetwork(body, num_actions, num_blocks=num_blocks, **options, **head)


class PolicyNetwork(nn.Module):
    """A body with a policy head and a value head on its features; distributions are made by whoever calls it.

    Args:
        body: module with ``in_keys``, ``out_features`` and ``forward(*tensors) -> [*B, out_features]``.
        policy: head from features to ``logits``, or to ``(loc, scale)``.
        value: head from features to ``[*B, 1]``.
        out_keys: names of what the policy head returns.
    """

    def __init__(self, body: nn.Module, policy: nn.Module, value: nn.Module, *, out_keys: Iterable[str]) -> None:
        super().__init__()
        self.body = body
        self.policy = policy
        self.value = value
        self.in_keys = list(cast("list[str]", body.in_keys))
        self.out_keys = [*out_keys, "state_value"]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Runs body and heads.

        Args:
            *inputs: tensors in the order of ``in_keys``.

        Returns:
            Tensors in the order of ``out_keys``: the policy's parameters, then the value ``[*B, 1]``.
        """
        features = self.body(*inputs)
        parameters = self.policy(features)
        parameters = (parameters,) if isinstance(parameters, Tensor) else parameters
        return (*parameters, self.value(features))


def build_policy_network(config: NNConfig, layout: ObservationLayout, action_space: spaces.Space[Any]) -> PolicyNetwork:
    """Builds a policy and its value.

    Args:
        config: the ``nn:`` block.
        layout: the keys that the task's observations yield.
        action_space: of one environment: Discrete, MultiDiscrete or Box.

    Returns:
        The network, with the parts that ``nn.freeze`` names frozen; its ``out_keys`` are ``logits``, or ``loc`` and
        ``scale``, and ``state_value``.

    Raises:
        ConfigError: the configuration and the spaces do not fit together.
    """
    network = policy_network(config.heads, build_body(config, layout), action_space)
    freeze_parts(network, config.freeze)
    return network


def policy_network(heads: HeadsConfig, body: nn.Module, action_space: spaces.Space[Any]) -> PolicyNetwork:
    """Puts the heads of a policy and its value on a body.

    Args:
        heads: the ``heads:`` block.
        body: what ``build_body`` returned.
        action_space: of one environment.

    Raises:
        ConfigError: no policy here has actions of this space.
    """
    policy = build_policy_head(heads, _width(body), action_space)
    out_keys = ("loc", "scale") if isinstance(action_space, spaces.Box) else ("logits",)
    return PolicyNetwork(body, policy, build_value_head(heads, _width(body)), out_keys=out_keys)


def freeze_parts(network: nn.Module, names: Iterable[str]) -> None:
    """Freezes parts of a network for good, by their names in ``nn.freeze``."""
    parts = modules_of_parts(network)
    freeze(network, [module for name in names for module in parts[name]])


def learning_rate_groups(
    network: nn.Module, factors: LearningRateFactors, learning_rate: float
) -> list[dict[str, Any]]:
    """Groups of the parameters that learn, for an optimiser.

    Args:
        network: what one of the functions above returned.
        factors: ``nn.learning_rate_factors``.
        learning_rate: that of the optimiser.

    Returns:
        One group for each part with a factor, and one for the rest, each with its ``lr`` and ``factor``.

    Raises:
        ConfigError: nothing is left to learn.
    """
    if not _learns(network):
        raise ConfigError("nn.freeze: every part is frozen, nothing is left to learn; leave one out")
    parts = modules_of_parts(network)
    named = {module: factor for name, factor in factors if factor != 1 for module in parts.get(name, ())}
    learning = {name: factor for name, factor in named.items() if _learns(network.get_submodule(name))}
    groups = parameter_groups(network, learning, 1.0)
    return [{**group, "lr": learning_rate * group["lr"], "factor": group["lr"]} for group in groups]


def modules_of_parts(network: nn.Module) -> dict[str, list[str]]:
    """Dotted names of the modules that make up each part of a network; a name may be that of a missing module."""
    parts = {
        "vision": ["body.vision"],
        "vector": ["body.vector"],
        "fusion": ["body.tokens", "body.trunk", "body.bridge"],
        "trunk": ["body.trunk"],
    }
    if isinstance(network, PolicyNetwork):
        return {**parts, "heads": ["policy", "value"], "policy": ["policy"], "value": ["value"]}
    whole = not hasattr(network.head, "advantage")  # a single stream is the head
    advantage = "head" if whole else "head.advantage"
    return {
        **parts,
        "embedding": ["embedding"],
        "heads": ["head"],
        "advantage": [advantage],
        "value": ["head.value"],
    }


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _width(body: nn.Module) -> int:
    return cast("int", body.out_features)


def make_layout(config: RunConfig, observation_space: spaces.Space[Any]) -> ObservationLayout:
    """The keys that the task's observations yield.

    Raises:
        ConfigError: the observation space holds what no network here can read.
    """
    try:
        return ObservationLayout(observation_space, channels=config.environment.channels)
    except ValueError as error:
        raise ConfigError(f"environment.id: {config.environment.id}: {error}") from error
