"""Greedy policies as functions of plain tensors, for export."""

import copy
from collections.abc import Mapping
from typing import Any, TypedDict, TypeVar

import torch
from torch import Tensor, nn

from tesserl_actor_critic import ActorCritic
from tesserl_environments import ObservationLayout
from tesserl_iqn import QuantileNetwork
from tesserl_nn_components import NoisyLinear
from tesserl_policy import mask_actions

Tensors = dict[str, Tensor]
Choices = list[tuple[Tensor, Tensor]]
Network = TypeVar("Network", bound=nn.Module)


class ExportError(Exception):
    """A policy cannot be exported, or the exported program computes something else."""


class Spec(TypedDict):
    """An input or output tensor of a program; sizes that may vary have names."""

    shape: list[int | str]
    dtype: str


Inputs = Mapping[str, Spec]
"""Inputs of a program, by name."""


class Program(nn.Module):
    """A greedy policy as a function: observation keys and ``more_inputs`` by keyword -> the entries of ``specs``."""

    def more_inputs(self) -> dict[str, Spec]:
        """Return the inputs besides observations."""
        return {}

    def specs(self) -> dict[str, Spec]:
        """Return the outputs by name."""
        raise NotImplementedError

    def choices(self, outputs: Tensors, action: Tensor) -> Choices:
        """Return the action values or logits ``[B, (N,) A]`` and the chosen actions ``[B, (N)]``, for comparisons.

        An exported program may choose another action of equal value. For continuous actions, return nothing.
        """
        raise NotImplementedError


class QuantileProgram(Program):
    """The greedy policy of a quantile network.

    It holds a copy of the network in evaluation mode, on the CPU, without noise: noisy layers are replaced by linear
    layers with their mean weights.

    Args:
        network: the network, its normalisation inside.
        taus: fixed fractions, ``[K]``; None makes them an input.
    """

    taus: Tensor | None

    def __init__(self, network: QuantileNetwork, taus: Tensor | None = None) -> None:
        super().__init__()
        self.network = exportable(network)
        self.register_buffer("taus", taus)
        self.eval()

    def more_inputs(self) -> dict[str, Spec]:
        """Return the inputs besides observations: taus, unless they are fixed."""
        return {"taus": spec("num_taus")} if self.taus is None else {}

    def specs(self) -> dict[str, Spec]:
        """Return the outputs by name."""
        blocks = [] if self.network.num_blocks is None else [self.network.num_blocks]
        specs = {
            "quantile_values": spec("num_taus", *blocks, self.network.num_actions),
            "action_value": spec(*blocks, self.network.num_actions),
            "action": spec(*blocks, dtype="int64"),
        }
        if self.taus is not None:
            del specs["quantile_values"]
        return specs

    def choices(self, outputs: Tensors, action: Tensor) -> Choices:
        """Return the action values ``[B, (N,) A]`` and the chosen actions ``[B, (N)]``."""
        return [(outputs["action_value"], action)]

    def forward(
        self,
        *,
        pixels: Tensor | None = None,
        observation: Tensor | None = None,
        action_mask: Tensor | None = None,
        taus: Tensor | None = None,
    ) -> Tensors:
        """Evaluate all actions and choose the best.

        Args:
            pixels: ``[B, C, H, W]``, if the network takes them.
            observation: ``[B, F]``, if the network takes it.
            action_mask: true for allowed actions, bool ``[B, (N,) A]``, if the task has masks; forbidden ones get the
                smallest float32 value.
            taus: fractions in [0, 1], ``[B, K]``, unless they are fixed.

        Returns:
            ``quantile_values`` ``[B, K, (N,) A]`` unless the taus are fixed, their mean ``action_value``
            ``[B, (N,) A]``, and the best ``action`` ``[B, (N)]``.
        """
        features = self.network.features(*_given(pixels, observation))
        quantile_values = self.network.quantiles(features, taus if self.taus is None else self.taus)
        action_value = quantile_values.mean(dim=1)
        if action_mask is not None:
            action_value = mask_actions(action_value, action_mask)
        outputs = {"action_value": action_value, "action": action_value.argmax(dim=-1)}
        return {"quantile_values": quantile_values, **outputs} if self.taus is None else outputs


class ActorCriticProgram(Program):
    """The greedy policy of an actor-critic network, with the parameters of its distribution and its value.

    It holds a copy of the network in evaluation mode, on the CPU. Continuous actions are in the units and bounds of the
    task. The state of a memory is an input and an output.

    Args:
        network: the network, its normalisation inside.
        has_value: whether the algorithm trains the value; if not, it is left out of the outputs.
    """

    low: Tensor | None
    high: Tensor | None

    def __init__(self, network: ActorCritic, *, has_value: bool = True) -> None:
        super().__init__()
        self.network = exportable(network)
        self.has_value = has_value
        if not has_value:
            self.network.critic_body, self.network.value = None, nn.Identity()
        self.state_names = ["_".join(key) for key in network.state_keys]  # recurrent_h, recurrent_c
        for name in ("low", "high"):
            self.register_buffer(name, getattr(network.actions, name, None))
        self.eval()

    def more_inputs(self) -> dict[str, Spec]:
        """Return the inputs besides observations: ``is_init`` and the state for a network with memory."""
        return {"is_init": spec(1, dtype="bool"), **self._states()} if self.state_names else {}

    def specs(self) -> dict[str, Spec]:
        """Return the outputs by name."""
        actions: Any = self.network.actions
        if self.low is not None:
            size = spec(len(self.low))
            specs = {"action": size, "loc": size, "scale": size}
        elif actions.scalar:
            specs = {"action": spec(dtype="int64"), "logits": spec(*actions.nvec)}
        else:
            logits = (sum(actions.nvec),) if actions.num_blocks is None else (actions.num_blocks, actions.nvec[0])
            specs = {"action": spec(len(actions.nvec), dtype="int64"), "logits": spec(*logits)}
        if self.has_value:
            specs["state_value"] = spec(1)
        return {**specs, **{f"next_{name}": spec for name, spec in self._states().items()}}

    def choices(self, outputs: Tensors, action: Tensor) -> Choices:
        """Return the logits ``[B, (N,) A]`` and the chosen actions; empty for continuous actions."""
        actions: Any = self.network.actions
        if self.low is not None:
            return []
        if actions.scalar or actions.num_blocks is not None:
            return [(outputs["logits"], action)]
        return list(zip(torch.split(outputs["logits"], actions.nvec, -1), action.unbind(-1), strict=True))

    def forward(
        self,
        *,
        pixels: Tensor | None = None,
        observation: Tensor | None = None,
        action_mask: Tensor | None = None,
        is_init: Tensor | None = None,
        recurrent_h: Tensor | None = None,
        recurrent_c: Tensor | None = None,
    ) -> Tensors:
        """Choose the most likely action.

        Args:
            pixels: ``[B, C, H, W]``, if the network takes them.
            observation: ``[B, F]``, if the network takes it.
            action_mask: true for allowed actions, bool in the shape of the logits, if the network takes it; forbidden
                ones have the smallest logit there is.
            is_init: true if the step begins an episode, bool ``[B, 1]``; this and the states only with a memory.
            recurrent_h: state after the step before, ``[B, layers, width]``.
            recurrent_c: the other state of an LSTM, ``[B, layers, width]``.

        Returns:
            ``action`` ``[B, (N)]`` or ``[B, D]``, ``logits`` ``[B, (N,) A]`` or ``loc`` and ``scale`` ``[B, D]``,
            ``state_value`` ``[B, 1]`` if there is one, and the state for the next step.
        """
        network = self.network
        run = network.forward_recurrent if self.state_names else network
        outputs = run(*_given(pixels, observation, action_mask, is_init, recurrent_h, recurrent_c))
        names = [*network.out_keys, *(f"next_{name}" for name in self.state_names)]
        named = dict(zip(names, outputs, strict=True))
        if not self.has_value:
            del named["state_value"]
        action = network.distribution(*outputs[: len(network.parameter_keys)]).mode
        if self.low is not None and self.high is not None:
            action = torch.minimum(torch.maximum(action, self.low), self.high)
        return {"action": action, **named}

    def _states(self) -> dict[str, Spec]:
        if not self.state_names:
            return {}
        body: Any = self.network.body
        states = body.initial_state(1)
        return {name: spec(*state.shape[1:]) for name, state in zip(self.state_names, states, strict=True)}


class WindowedMaxPool(nn.Module):
    """``nn.AdaptiveMaxPool2d``, bit for bit, in operations that ONNX has (torch 2.13 cannot translate the original)."""

    def __init__(self, output_size: int | tuple[int, int]) -> None:
        super().__init__()
        self.output_size = (output_size, output_size) if isinstance(output_size, int) else output_size

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[B, C, H, W]`` to ``[B, C, *output_size]``."""
        for axis, num_windows in zip((2, 3), self.output_size, strict=True):
            size = images.shape[axis]
            # torch's windows reach from floor(i * size / n) to ceil((i + 1) * size / n)
            windows = [(i * size // num_windows, -(-(i + 1) * size // num_windows)) for i in range(num_windows)]
            maxima = [images.narrow(axis, start, stop - start).amax(axis) for start, stop in windows]
            images = torch.stack(maxima, axis)
        return images


def exportable(network: Network) -> Network:
    """Copy a network to the CPU in float32, with exportable layers."""
    network = copy.deepcopy(network).to("cpu", torch.float32).requires_grad_(False)
    _replace_layers(network)
    return network


def _replace_layers(module: nn.Module) -> None:
    """Replace layers that a program does not need (noise) or cannot contain (adaptive pooling)."""
    for name, child in module.named_children():
        if isinstance(child, NoisyLinear):
            linear = nn.Linear(child.in_features, child.out_features, device="meta")
            linear.weight = child.weight_mu
            linear.bias = child.bias_mu  # type: ignore[assignment]  # None: no bias
            setattr(module, name, linear)
        elif isinstance(child, nn.AdaptiveMaxPool2d):
            setattr(module, name, WindowedMaxPool(child.output_size))  # type: ignore[arg-type]
        else:
            _replace_layers(child)


def _given(*tensors: Tensor | None) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor is not None]


def spec(*shape: int | str, dtype: str = "float32") -> Spec:
    """Describe a tensor with a batch dimension and this shape."""
    return Spec(shape=["batch", *shape], dtype=dtype)


def observation_specs(layout: ObservationLayout) -> dict[str, Spec]:
    """Return the observation inputs of a program, with any batch size."""
    return {key: Spec(shape=["batch", *shape], dtype=str(layout.dtypes[key])) for key, shape in layout.shapes.items()}


def random_inputs(inputs: Inputs, batch_size: int, num_taus: int, generator: torch.Generator) -> Tensors:
    """Draw random inputs of a program: pixels in their range, taus in [0, 1], booleans, standard normal otherwise."""
    sizes = {"batch": batch_size, "num_taus": num_taus}
    drawn = {}
    for name, spec in inputs.items():
        shape = [sizes[size] if isinstance(size, str) else size for size in spec["shape"]]
        if spec["dtype"] == "uint8":
            drawn[name] = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        elif spec["dtype"] == "bool":
            drawn[name] = torch.randint(2, shape, generator=generator).bool()
        else:
            draw = torch.rand if name in ("pixels", "taus") else torch.randn
            drawn[name] = draw(shape, generator=generator)
    return drawn
