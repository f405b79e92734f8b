"""``tesserl config show --shapes``: list a network's layers, from a dry run on the meta device."""

import functools
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tesserl_configs import ConfigError, RunConfig
from tesserl_environments.masks import ACTION_MASK
from tesserl_nn_components import RecurrentBody
from tesserl_nn_components.hf_loading import has_own_code
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.console.tables import aligned
from tesserl_trainer.machine import pretrained_parts
from tesserl_trainer.networks.parts import HF_ERRORS, named

BATCH = 2
"""Observations in the dry run; each has ``iqn.num_taus`` taus, or is one step of an episode."""


@dataclass
class Layer:
    """A module that has direct parameters or no submodules."""

    name: str
    kind: str
    inputs: str
    """Shapes of its inputs in the dry run; empty if the forward pass does not call it."""

    output: str
    parameters: int
    learns: bool


def network_layers(config: RunConfig) -> list[Layer]:
    """Return the layers of a run's network in the order of the forward pass; make the task, but do not step it."""
    task = Task(without_code_of_models(config))
    with torch.device("meta"):
        network: Any = task.network()
        shapes = {key: shape for key, shape in task.layout.shapes.items() if key in network.in_keys}
        if "taus" in network.in_keys:
            shapes["taus"] = (config.iqn.num_taus,)
        inputs = [
            torch.zeros(BATCH, *shape, dtype=torch.bool if key == ACTION_MASK else None)
            for key, shape in shapes.items()
        ]
        if getattr(network, "state_keys", ()):
            is_init = torch.ones(BATCH, 1, dtype=torch.bool)
            inputs += [is_init, *network.body.initial_state(BATCH)]
        return dry_run(network, inputs)


def without_code_of_models(config: RunConfig) -> RunConfig:
    """Return the configuration without trust in any model's code; refuse models that need their own code."""
    data = config.model_dump(mode="json")
    for key, block in pretrained_parts(config).items():
        with named(key, *HF_ERRORS):
            own_code = block.trust_remote_code and has_own_code(
                block.model, revision=block.revision, local_files_only=block.local_files_only
            )
        if own_code:
            raise ConfigError(
                f"{key}.trust_remote_code: expected a model without code of its own, as showing a network runs none, "
                f"got {block.model}; train with it, or remove the key to see the network of transformers"
            )
        functools.reduce(operator.getitem, key.split("."), data)["trust_remote_code"] = False
    return type(config).model_validate(data)


def dry_run(network: nn.Module, inputs: list[Tensor]) -> list[Layer]:
    """Run a network once on the meta device; return its layers in the order of first calls, uncalled ones last."""
    layers = dict(_layers(network))
    called: dict[str, Layer] = {}

    def note(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        layer = layers[module]
        if layer.name not in called:
            layer.inputs, layer.output = _shapes(arguments), _shapes(output)
            called[layer.name] = layer

    def note_memory(body: Any, arguments: tuple[Any, ...], output: Any) -> None:
        # a single step calls the cells of recurrent layers, not the layers themselves
        features = torch.empty(BATCH, body.memory.input_size, device="meta")
        note(body.memory, (features, *arguments[-len(body.state_keys) :]), output)

    handles = [module.register_forward_hook(note) for module in layers]
    bodies = [module for module in network.modules() if isinstance(module, RecurrentBody)]
    handles += [body.register_forward_hook(note_memory) for body in bodies]
    network.eval()(*inputs)
    for handle in handles:
        handle.remove()
    rest = [layer for layer in layers.values() if layer.name not in called and layer.parameters]
    return [*called.values(), *rest]


def text(layers: list[Layer]) -> str:
    """Format the layers as a table."""
    rows = [("layer", "kind", "input", "output", "parameters")]
    for layer in layers:
        parameters = f"{layer.parameters:,}" + ("" if layer.learns else " frozen")
        rows.append((layer.name, layer.kind, layer.inputs or "-", layer.output or "-", parameters))
    learning = sum(layer.parameters for layer in layers if layer.learns)
    total = sum(layer.parameters for layer in layers)
    return "\n".join([*aligned(rows), f"{total:,} parameters, {learning:,} of them learn; a batch of {BATCH}"])


def _layers(network: nn.Module) -> Iterator[tuple[nn.Module, Layer]]:
    """Yield every module that is a layer, with its description before the run."""
    for name, module in network.named_modules():
        own = list(module.parameters(recurse=False))
        if own or not list(module.children()):
            count = sum(parameter.numel() for parameter in own)
            learns = not own or any(parameter.requires_grad for parameter in own)
            yield module, Layer(name, type(module).__name__, "", "", count, learns)


def _shapes(value: Any) -> str:
    """Return the shapes of all tensors in a value as text, such as ``2 x 8 x 512``."""
    if isinstance(value, Tensor):
        return " x ".join(map(str, value.shape))
    if isinstance(value, dict):
        value = tuple(value.values())
    return ", ".join(filter(None, map(_shapes, value))) if isinstance(value, tuple | list) else ""
