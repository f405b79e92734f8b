"""``nn:`` and the spaces of the task -> a network. Which network is built is decided here and nowhere else."""

from typing import Any

from gymnasium import spaces
from torch import nn

from tesserl_configs import ConfigError, RunConfig
from tesserl_iqn import QuantileNetwork
from tesserl_nn_components import ConcatFusion, Conv2dHead, VectorEncoder
from tesserl_trainer.run.observations import ObservationLayout
from tesserl_trainer.wiring.environments import discrete_actions

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


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
    heads, iqn = config.nn.heads, config.iqn
    return QuantileNetwork(
        build_body(config.nn, layout),
        num_actions,
        num_blocks=num_blocks,
        num_cosines=iqn.num_cosines,
        cosine_start=iqn.cosine_start,
        hidden_sizes=heads.hidden_sizes,
        dueling=heads.dueling,
        noisy=heads.noisy,
    )


def build_body(config: Any, layout: ObservationLayout) -> nn.Module:
    """Builds the encoders of an ``nn:`` block and what joins them.

    Args:
        config: the block.
        layout: the keys that the task's observations yield.

    Raises:
        ConfigError: a branch has no input, or an input no branch.
    """
    branches = {"pixels": ("vision", config.vision), "observation": ("vector", config.vector)}
    for key, (name, branch) in branches.items():
        if branch.kind == "none" and key in layout.keys:
            raise ConfigError(
                f"nn.{name}.kind: the task's observations hold {key} {layout.shapes[key]}, got none; choose an "
                f"encoder for them, or remove them from the observations in a wrapper"
            )
        if branch.kind != "none" and key not in layout.keys:
            raise ConfigError(
                f"nn.{name}.kind: {branch.kind} needs {key}, and the task's observations hold only "
                f"{', '.join(layout.keys)}; set it to none"
            )
    vision = _vision(config.vision, layout) if config.vision.kind != "none" else None
    vector = _vector(config.vector, layout) if config.vector.kind != "none" else None
    return ConcatFusion(vision=vision, vector=vector)


def _vision(config: Any, layout: ObservationLayout) -> nn.Module:
    channels, height, width = layout.shapes["pixels"]
    try:
        return Conv2dHead(
            (channels, height, width),
            config.channels,
            config.kernel_sizes,
            config.strides,
            config.hidden_sizes,
            paddings=config.paddings,
            activation=ACTIVATIONS[config.activation],
            use_maxpool=config.use_maxpool,
        )
    except ValueError as error:
        raise ConfigError(f"nn.vision: {error}") from error


def _vector(config: Any, layout: ObservationLayout) -> nn.Module:
    (width,) = layout.shapes["observation"]
    normalization = config.normalization
    fixed = normalization.kind == "fixed"
    if fixed and len(normalization.mean) != width:
        raise ConfigError(
            f"nn.vector.normalization.mean: expected {width} numbers, one per feature, got {len(normalization.mean)}"
        )
    return VectorEncoder(
        width,
        hidden_sizes=config.hidden_sizes,
        activation=ACTIVATIONS[config.activation],
        layer_norm=config.layer_norm,
        mean=normalization.mean if fixed else None,
        std=normalization.std if fixed else None,
        running=normalization.kind == "running",
    )


def make_layout(config: RunConfig, observation_space: spaces.Space[Any]) -> ObservationLayout:
    """The keys that the task's observations yield.

    Raises:
        ConfigError: the observation space holds what no network here can read.
    """
    try:
        return ObservationLayout(observation_space, channels=config.environment.channels)
    except ValueError as error:
        raise ConfigError(f"environment.id: {config.environment.id}: {error}") from error
