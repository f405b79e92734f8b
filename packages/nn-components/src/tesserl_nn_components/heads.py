"""Heads: from features to action values, state values and distribution parameters."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from tesserl_nn_components.gradients import scale_grad
from tesserl_nn_components.mlp import MLP, Activation


class DuelingHead(nn.Module):
    """``Q = V + A - mean_a(A)`` from two MLPs.

    Wang et al. 2016 (arXiv:1511.06581), equation 9. With leading dimensions for quantiles it combines per quantile.

    Args:
        in_features: width of the features.
        num_actions: number of actions ``A``.
        hidden_sizes: hidden widths of each of the two MLPs.
        noisy: makes their layers :class:`NoisyLinear`.
        layer_norm: puts a LayerNorm before each activation.
        activation: makes the activation module.
        num_blocks: number ``N`` of action blocks; each has advantages and a value of its own, so that a loss that sums
            blocks does not count one value ``N`` times. None for a single action and no such dimension.
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
        self.num_actions = num_actions
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
        advantage, value = self.advantage(features), self.value(features)
        if self.num_blocks is not None:
            advantage = advantage.unflatten(-1, (self.num_blocks, self.num_actions))
            value = value.unsqueeze(-1)
        return value + (advantage - advantage.mean(-1, keepdim=True))


class ValueHead(nn.Module):
    """State value from an MLP.

    Args:
        in_features: width of the features.
        hidden_sizes: hidden widths; empty for one linear layer.
        activation: makes the activation module.
        layer_norm: puts a LayerNorm before each activation.
    """

    def __init__(
        self,
        in_features: int,
        *,
        hidden_sizes: int | Sequence[int] = (),
        activation: Activation = nn.ReLU,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.mlp = MLP(in_features, hidden_sizes, 1, activation=activation, layer_norm=layer_norm)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[*B, in_features]`` to ``[*B, 1]``."""
        return self.mlp(features)
