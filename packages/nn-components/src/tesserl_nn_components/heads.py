"""Heads: from features to action values, state values and distribution parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from tesserl_nn_components.calls import child, run
from tesserl_nn_components.gradients import scale_grad
from tesserl_nn_components.mlp import MLP, Activation


class Slot(Protocol):
    """Make one stream of a head: a module from ``[*B, in_features]`` to ``[*B, out_features]``."""

    def __call__(self, *, in_features: int, out_features: int) -> nn.Module:
        """Return the module."""
        ...


def _stream(
    slot: Slot | None,
    in_features: int,
    out_features: int,
    hidden_sizes: int | Sequence[int],
    activation: Activation,
    layer_norm: bool,
) -> nn.Module:
    """Return the module that ``slot`` makes, or an MLP if it is None."""
    if slot is not None:
        return slot(in_features=in_features, out_features=out_features)
    return MLP(in_features, hidden_sizes, out_features, activation=activation, layer_norm=layer_norm)


class DuelingHead(nn.Module):
    """``Q = V + A - mean_a(A)`` from two MLPs.

    Wang et al. 2016 (arXiv:1511.06581), equation 9. If the features have a quantile dimension, the streams are combined
    for each quantile.

    Args:
        in_features: width of the features.
        num_actions: number of actions ``A``.
        hidden_sizes: hidden widths of each of the two MLPs.
        noisy: makes the layers of both MLPs :class:`NoisyLinear`.
        layer_norm: puts a LayerNorm before each activation.
        activation: makes the activation module.
        num_blocks: number ``N`` of action blocks. Each block has its own advantages and value, so that a loss that sums
            blocks does not count one value ``N`` times. None for a single action, without a block dimension.
        gradient_scale: factor of the gradient that leaves the head; the paper uses ``2 ** -0.5``.
    """

    def __init__(
        self,
        in_features: int,
        num_actions: int,
        *,
        hidden_sizes: int | Sequence[int] = (512,),
        noisy: bool = False,
        layer_norm: bool = False,
        activation: Activation = nn.ReLU,
        num_blocks: int | None = None,
        gradient_scale: float = 1.0,
    ) -> None:
        super().__init__()
        blocks = 1 if num_blocks is None else num_blocks
        self.num_blocks = num_blocks
        self.gradient_scale = gradient_scale
        self.advantage, self.value = (
            MLP(in_features, hidden_sizes, width, activation=activation, layer_norm=layer_norm, noisy=noisy)
            for width in (blocks * num_actions, blocks)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[*B, in_features]`` to action values ``[*B, A]``, or ``[*B, N, A]`` with blocks."""
        if self.gradient_scale != 1:
            features = scale_grad(features, self.gradient_scale)
        return combine_dueling(self.advantage(features), self.value(features), self.num_blocks)


def combine_dueling(advantage: Tensor, value: Tensor | None, num_blocks: int | None) -> Tensor:
    """Return ``V + A - mean_a(A)``.

    Args:
        advantage: ``[*B, A]``, or ``[*B, N * A]`` for ``N`` blocks.
        value: ``[*B, 1]``, or ``[*B, N]`` for ``N`` blocks; None returns the advantage as it is.
        num_blocks: number of blocks ``N``; None for no blocks.

    Returns:
        ``[*B, A]``, or ``[*B, N, A]`` with blocks.
    """
    if num_blocks is not None:
        advantage = split_blocks(advantage, num_blocks)
        value = None if value is None else value.unsqueeze(-1)
    return advantage if value is None else value + (advantage - advantage.mean(-1, keepdim=True))


def split_blocks(values: Tensor, num_blocks: int) -> Tensor:
    """Reshape ``[*B, N * A]`` to ``[*B, N, A]`` for ``N`` blocks."""
    return values.reshape(*values.shape[:-1], num_blocks, values.shape[-1] // num_blocks)


class ValueHead(nn.Module):
    """State value from an MLP.

    Args:
        in_features: width of the features.
        hidden_sizes: hidden widths; empty for one linear layer.
        activation: makes the activation module.
        layer_norm: puts a LayerNorm before each activation.
        stream: makes the module from features to outputs, such as a partial `TransformerSlot`; the options of the MLP
            then have no effect. None for an MLP.
    """

    def __init__(
        self,
        in_features: int,
        *,
        hidden_sizes: int | Sequence[int] = (),
        activation: Activation = nn.ReLU,
        layer_norm: bool = False,
        stream: Slot | None = None,
    ) -> None:
        super().__init__()
        self.mlp = _stream(stream, in_features, 1, hidden_sizes, activation, layer_norm)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[*B, in_features]`` to ``[*B, 1]``."""
        return run(child(self, "mlp"), features)


class CategoricalHead(nn.Module):
    """Logits of ``num_actions`` actions, or of ``num_actions`` for each action block.

    Args:
        in_features: width of the features.
        num_actions: number of actions ``A``.
        num_blocks: number ``N`` of action blocks; None for a single action, without a block dimension.
        hidden_sizes: hidden widths; empty for one linear layer.
        activation: makes the activation module.
        layer_norm: puts a LayerNorm before each activation.
        stream: makes the module from features to outputs, such as a partial `TransformerSlot`; the options of the MLP
            then have no effect. None for an MLP.
    """

    def __init__(
        self,
        in_features: int,
        num_actions: int,
        *,
        num_blocks: int | None = None,
        hidden_sizes: int | Sequence[int] = (),
        activation: Activation = nn.ReLU,
        layer_norm: bool = False,
        stream: Slot | None = None,
    ) -> None:
        super().__init__()
        width = num_actions * (1 if num_blocks is None else num_blocks)
        self.num_blocks = num_blocks
        self.mlp = _stream(stream, in_features, width, hidden_sizes, activation, layer_norm)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[*B, in_features]`` to logits ``[*B, A]``, or ``[*B, N, A]`` with blocks."""
        logits: Tensor = run(child(self, "mlp"), features)
        return logits if self.num_blocks is None else split_blocks(logits, self.num_blocks)


class MultiCategoricalHead(nn.Module):
    """Logits of several choices of different sizes, concatenated.

    Args:
        in_features: width of the features.
        nvec: number of options of each choice.
        hidden_sizes: hidden widths; empty for one linear layer.
        activation: makes the activation module.
        layer_norm: puts a LayerNorm before each activation.
        stream: makes the module from features to outputs, such as a partial `TransformerSlot`; the options of the MLP
            then have no effect. None for an MLP.

    Raises:
        ValueError: if ``nvec`` is empty or has an entry below 1.
    """

    def __init__(
        self,
        in_features: int,
        nvec: Sequence[int],
        *,
        hidden_sizes: int | Sequence[int] = (),
        activation: Activation = nn.ReLU,
        layer_norm: bool = False,
        stream: Slot | None = None,
    ) -> None:
        super().__init__()
        self.nvec = [int(options) for options in nvec]
        if not self.nvec or min(self.nvec) < 1:
            raise ValueError(f"nvec must have at least one entry, all at least 1, got {self.nvec}")
        self.mlp = _stream(stream, in_features, sum(self.nvec), hidden_sizes, activation, layer_norm)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[*B, in_features]`` to logits ``[*B, sum(nvec)]``; split them with ``logits.split(head.nvec, -1)``."""
        return self.mlp(features)


class GaussianHead(nn.Module):
    """Mean and standard deviation of a diagonal Gaussian over continuous actions.

    Args:
        in_features: width of the features.
        action_features: number ``D`` of action dimensions.
        hidden_sizes: hidden widths; empty for one linear layer.
        activation: makes the activation module.
        layer_norm: puts a LayerNorm before each activation.
        stream: makes the module from features to outputs, such as a partial `TransformerSlot`; the options of the MLP
            then have no effect. None for an MLP.
        state_dependent_scale: predict the scale from the features; otherwise it is a parameter per dimension.
        initial_scale: scale after initialisation, in units of the action; a state-dependent scale varies around it.
        min_scale: smallest scale; outside of [``min_scale``, ``max_scale``] the gradient is zero.
        max_scale: largest scale.

    Raises:
        ValueError: unless ``0 < min_scale <= initial_scale <= max_scale``.
    """

    def __init__(
        self,
        in_features: int,
        action_features: int,
        *,
        hidden_sizes: int | Sequence[int] = (),
        activation: Activation = nn.ReLU,
        layer_norm: bool = False,
        stream: Slot | None = None,
        state_dependent_scale: bool = False,
        initial_scale: float = 1.0,
        min_scale: float = 1e-6,
        max_scale: float = 10.0,
    ) -> None:
        super().__init__()
        if not 0 < min_scale <= initial_scale <= max_scale:
            raise ValueError(
                "scales must be 0 < min_scale <= initial_scale <= max_scale, "
                f"got {min_scale}, {initial_scale}, {max_scale}"
            )
        self.log_range = math.log(min_scale), math.log(max_scale)
        self.log_initial = math.log(initial_scale)
        width = action_features * (2 if state_dependent_scale else 1)
        self.mlp = _stream(stream, in_features, width, hidden_sizes, activation, layer_norm)
        self.log_scale = None if state_dependent_scale else nn.Parameter(torch.zeros(action_features))

    def reset_parameters(self) -> None:
        """Set a state-independent scale to its initial value; the layers inside do not change."""
        if self.log_scale is not None:
            nn.init.zeros_(self.log_scale)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``[*B, in_features]`` to (loc, scale), ``[*B, D]`` each."""
        loc: Tensor = self.mlp(features)
        if self.log_scale is None:
            loc, log_scale = loc.chunk(2, -1)
        else:
            log_scale = self.log_scale.expand_as(loc)
        return loc, (log_scale + self.log_initial).clamp(*self.log_range).exp()
