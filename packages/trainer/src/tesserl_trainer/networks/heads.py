"""Build heads from ``nn.heads:`` and an action space: they map features to quantiles, or to a policy and a value."""

import functools
from typing import Any

import numpy as np
from gymnasium import spaces
from torch import nn

from tesserl_configs import ConfigError
from tesserl_configs.nn import HeadsConfig, MLPStream, Stream, TransformerStream
from tesserl_configs.policy import Distribution
from tesserl_nn_components import (
    MLP,
    CategoricalHead,
    GaussianHead,
    MultiCategoricalHead,
    QuantileDecoder,
    TransformerSlot,
    ValueHead,
)
from tesserl_nn_components.heads import Slot
from tesserl_trainer.networks.parts import ACTIVATIONS, attention


def build_quantile_head(config: HeadsConfig, features: int, num_actions: int, num_blocks: int | None) -> nn.Module:
    """Build the head of a quantile network.

    Args:
        config: the ``heads:`` block.
        features: width of the modulated features.
        num_actions: number ``A`` of actions of each block.
        num_blocks: number ``N`` of action blocks; None for one action.

    Returns:
        A module from ``[*B, K, features]`` to ``[*B, K, A]``, or ``[*B, K, N, A]`` with blocks. With a single stream
        and no blocks it is the advantage stream itself.
    """
    advantage = _stream(config, config.advantage)
    if num_blocks is None and not config.dueling:
        return advantage(in_features=features, out_features=num_actions)
    return QuantileDecoder(
        features,
        num_actions,
        num_blocks=num_blocks,
        dueling=config.dueling,
        advantage=advantage,
        value=_stream(config, config.value),
    )


def build_policy_head(
    config: HeadsConfig, features: int, action_space: spaces.Space[Any], distribution: Distribution
) -> nn.Module:
    """Build the head of a policy.

    Args:
        config: the ``heads:`` block.
        features: width of the features.
        action_space: action space of one environment.
        distribution: distribution of continuous actions.

    Returns:
        A module from ``[*B, features]`` to ``logits``: ``[*B, A]`` for Discrete, ``[*B, N, A]`` for MultiDiscrete
        with N equal entries, ``[*B, sum(nvec)]`` for other MultiDiscrete spaces; or to ``(loc, scale)``, ``[*B, D]``
        each, for Box.

    Raises:
        ConfigError: the space is of another kind.
    """
    match action_space:
        case spaces.Discrete() if action_space.start == 0:
            return _head(CategoricalHead, config, config.policy, features, int(action_space.n))
        case spaces.MultiDiscrete() if len(action_space.shape) == 1 and not action_space.start.any():
            options = [int(number) for number in action_space.nvec]
            if len(set(options)) == 1:
                return _head(CategoricalHead, config, config.policy, features, options[0], num_blocks=len(options))
            return _head(MultiCategoricalHead, config, config.policy, features, options)
        case spaces.Box() if len(action_space.shape) == 1 and np.issubdtype(action_space.dtype, np.floating):
            return _head(
                GaussianHead,
                config,
                config.policy,
                features,
                action_space.shape[0],
                initial_scale=distribution.initial_scale,
                state_dependent_scale=distribution.state_dependent_scale,
            )
    raise ConfigError(
        "environment.id: a policy needs a Discrete or MultiDiscrete action space that starts at 0, or a Box of one "
        f"axis of numbers, got {action_space}; use another task or convert its actions in a wrapper"
    )


def build_shared_layers(config: HeadsConfig, features: int) -> MLP | None:
    """Build the hidden layers shared by policy and value, from ``[*B, features]``; None if there are none."""
    if not config.shared_hidden_sizes:
        return None
    activation = ACTIVATIONS[config.activation]
    return MLP(features, config.shared_hidden_sizes, activation=activation, layer_norm=config.layer_norm)


def build_value_head(config: HeadsConfig, features: int) -> nn.Module:
    """Build the head of the state value, from ``[*B, features]`` to ``[*B, 1]``."""
    return _head(ValueHead, config, config.value, features)


def _head(
    kind: type[nn.Module], config: HeadsConfig, stream: Stream | None, features: int, *sizes: Any, **options: Any
) -> nn.Module:
    """Build a head whose stream is a block, or None for an MLP of ``hidden_sizes``."""
    return kind(features, *sizes, stream=_stream(config, stream), **options)


def _hidden_sizes(config: HeadsConfig, stream: Stream | None) -> tuple[int, ...]:
    """Return the widths of the hidden layers of a stream; none for transformer layers."""
    match stream:
        case MLPStream():
            return stream.hidden_sizes
        case TransformerStream():
            return ()
    return config.hidden_sizes


def _stream(config: HeadsConfig, stream: Stream | None) -> Slot:
    """Return the function that makes a stream: its block, or None for an MLP of ``hidden_sizes``."""
    activation = ACTIVATIONS[config.activation]
    if isinstance(stream, TransformerStream):
        return functools.partial(
            TransformerSlot,
            hidden_features=stream.hidden_features,
            activation=activation,
            layer_norm=config.layer_norm,
            noisy=config.noisy,
            d_model=stream.d_model,
            num_layers=stream.num_layers,
            **attention(stream),
        )
    return functools.partial(
        MLP,
        hidden_sizes=_hidden_sizes(config, stream),
        activation=activation,
        layer_norm=config.layer_norm,
        noisy=config.noisy,
    )
