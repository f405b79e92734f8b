"""Most of ``nn:`` -> a body, from the observations of the task to features: encoders, what joins them, and memory."""

from torch import nn

from tesserl_configs import ConfigError
from tesserl_configs.base import Absent
from tesserl_configs.nn import Memory, NNConfig
from tesserl_environments import ObservationLayout
from tesserl_nn_components import RecurrentBody
from tesserl_trainer.networks.encoders import build_vector, build_vision
from tesserl_trainer.networks.fusing import build_fusion


def build_body(config: NNConfig, layout: ObservationLayout) -> nn.Module:
    """Build the encoders of an ``nn:`` block, their fusion and the memory.

    Args:
        config: the block.
        layout: the keys that the task's observations yield.

    Raises:
        ConfigError: a branch has no input, or an input no branch, or an option does not fit the size of its input.
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
    vision = None if config.vision.kind == "none" else build_vision(config.vision, layout.shapes["pixels"])
    vector = None if config.vector.kind == "none" else build_vector(config.vector, layout.shapes["observation"][0])
    return build_memory(config.memory, build_fusion(config.fusion, vision, vector))


def build_memory(config: Memory, body: nn.Module) -> nn.Module:
    """Put a recurrent network on a body; without memory return the body."""
    if isinstance(config, Absent):
        return body
    return RecurrentBody(body, config.hidden_size, kind=config.kind, num_layers=config.num_layers)
