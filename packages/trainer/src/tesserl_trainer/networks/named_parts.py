"""The named parts of a network in ``nn:``: find their modules, freeze them, and set their learning rates."""

from collections.abc import Iterable
from typing import TypedDict

from torch import nn

from tesserl_actor_critic import ActorCritic
from tesserl_configs import ConfigError
from tesserl_configs.nn import LearningRateFactors
from tesserl_nn_components import RecurrentBody, freeze, parameter_groups


class Group(TypedDict):
    """Parameters of an optimiser with one learning rate: ``factor`` times the optimiser's."""

    name: str
    params: list[nn.Parameter]
    lr: float
    factor: float


def freeze_parts(network: nn.Module, names: Iterable[str]) -> None:
    """Freeze parts of a network permanently, by their names in ``nn.freeze``."""
    parts = modules_of_parts(network)
    freeze(network, [module for name in names for module in parts[name]])


def learning_rate_groups(network: nn.Module, factors: LearningRateFactors, learning_rate: float) -> list[Group]:
    """Group the trainable parameters: one group for each part with a factor, and one for the rest."""
    if not _learns(network):
        raise ConfigError("nn.freeze: every part is frozen, nothing is left to learn; leave one out")
    parts = modules_of_parts(network)
    named = {
        module: factor for name, factor in factors.by_part().items() if factor != 1 for module in parts.get(name, ())
    }
    learning = {name: factor for name, factor in named.items() if _learns(network.get_submodule(name))}
    groups = parameter_groups(network, learning, 1.0)
    return [
        Group(name=group["name"], params=list(group["params"]), lr=learning_rate * group["lr"], factor=group["lr"])
        for group in groups
    ]


def modules_of_parts(network: nn.Module) -> dict[str, list[str]]:
    """Return the dotted names of the modules of each part of a network; a named module may be missing."""
    parts = modules_of_body(network.get_submodule("body"), "body.")
    if isinstance(network, ActorCritic):
        if network.critic_body is not None:
            for name, modules in modules_of_body(network.critic_body, "critic_body.").items():
                parts[name] = parts[name] + modules
        shared = [] if network.shared is None else ["shared"]
        heads = {"shared": shared, "policy": ["policy"], "value": ["value"]}
        return {**parts, **heads, "heads": [*shared, "policy", "value"]}
    whole = not hasattr(network.head, "advantage")  # a single stream is the head
    advantage = "head" if whole else "head.advantage"
    return {
        **parts,
        "embedding": ["embedding"],
        "heads": ["head"],
        "advantage": [advantage],
        "value": ["head.value"],
    }


def modules_of_body(body: nn.Module, prefix: str = "") -> dict[str, list[str]]:
    """Return the dotted names of the modules of each part of a body, with a prefix."""
    inner = f"{prefix}body." if isinstance(body, RecurrentBody) else prefix
    return {
        "body": [inner.removesuffix(".")],
        "vision": [f"{inner}vision"],
        "vector": [f"{inner}vector"],
        "fusion": [f"{inner}tokens", f"{inner}trunk", f"{inner}bridge"],
        "trunk": [f"{inner}trunk"],
        "memory": [f"{prefix}memory"],
    }


def find_module(module: nn.Module, path: str) -> nn.Module | None:
    """Return the module of a dotted name; None if there is none."""
    for name in path.split("."):
        found = getattr(module, name, None)
        if not isinstance(found, nn.Module):
            return None
        module = found
    return module


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
