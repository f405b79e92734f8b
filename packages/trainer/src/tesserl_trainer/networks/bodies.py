"""Build a body from ``nn:``: encoders, fusion and memory, which map the task's observations to features."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import torch
from torch import nn

from tesserl_configs import ConfigError, RunConfig, nn_rules
from tesserl_configs.base import Absent
from tesserl_configs.nn import Memory, NNConfig
from tesserl_configs.paths import with_module_path
from tesserl_environments import EnvironmentArgumentError, ObservationLayout, load_named
from tesserl_nn_components import RecurrentBody, require_body
from tesserl_trainer.networks.encoders import build_vector, build_vision
from tesserl_trainer.networks.fusing import build_fusion
from tesserl_trainer.networks.parts import named

MakeBody = Callable[..., nn.Module]
"""Makes a body from the observation space, as networks see it, and keyword arguments."""


def build_body(config: NNConfig, layout: ObservationLayout) -> nn.Module:
    """Build the encoders of an ``nn:`` block, their fusion and the memory.

    Args:
        config: the block.
        layout: observation keys of the task, with their shapes.

    Raises:
        ConfigError: a branch has no input, an input has no branch, an option does not fit the size of its input, or
            ``nn.body`` does not return a body.
    """
    if config.body is not None:
        return build_memory(config.memory, build_own_body(config.body, config.kwargs, layout))
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


def with_body(config: RunConfig, body: MakeBody) -> RunConfig:
    """Return the configuration with a function or class as ``nn.body``, in place of vision, vector and fusion."""
    module, name = getattr(body, "__module__", ""), getattr(body, "__qualname__", "")
    if getattr(sys.modules.get(module), name, None) is not body:
        raise ConfigError(
            f"body: expected a function or class at the top level of a module, got {body!r}; define it there and set "
            "nn.kwargs to its arguments"
        )
    parts = dict.fromkeys(("vision", "vector", "fusion"), Absent())
    network = config.nn.model_copy(update={**parts, "body": f"{module}:{name}"})
    if problems := list(nn_rules.check(network, config.algorithm)):
        raise ConfigError(*problems)
    file = getattr(sys.modules[module], "__file__", None)
    return with_module_path(config.model_copy(update={"nn": network}), [] if file is None else [Path(file).parent])


def build_memory(config: Memory, body: nn.Module) -> nn.Module:
    """Add a recurrent network to a body; without memory return the body."""
    if isinstance(config, Absent):
        return body
    return RecurrentBody(body, config.hidden_size, kind=config.kind, num_layers=config.num_layers)


def build_own_body(target: str, kwargs: Mapping[str, object], layout: ObservationLayout) -> nn.Module:
    """Call ``module:callable`` with the observation space; check its body by a pass over two observations of zeros."""
    try:
        build = load_named(target, "nn.body")
    except EnvironmentArgumentError as error:
        raise ConfigError(str(error)) from error
    with named(f"nn.body: {target}", Exception):
        body = build(layout.space, **kwargs)
        if not isinstance(body, nn.Module):
            raise TypeError(f"expected an nn.Module, got {type(body).__name__}; return one")
        require_body(body)
        in_keys, out_features = cast("tuple[list[str], int]", (body.in_keys, body.out_features))
        if not in_keys or not set(in_keys) <= set(layout.keys):
            raise ValueError(f"expected in_keys among {list(layout.keys)}, got {in_keys}; read what the task shows")
        was_training = body.training
        with torch.no_grad():
            shape = tuple(body.eval()(*(torch.zeros(2, *layout.shapes[key]) for key in in_keys)).shape)
        body.train(was_training)
        if shape != (2, out_features):
            raise ValueError(
                f"expected features of shape {(2, out_features)} for two observations, got {shape}; correct "
                "out_features or forward"
            )
    return body
