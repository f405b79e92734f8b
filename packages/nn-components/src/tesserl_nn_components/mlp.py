"""Multilayer perceptron."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from tesserl_nn_components.calls import child, run_layers
from tesserl_nn_components.inputs import explain_features
from tesserl_nn_components.noisy import NoisyLinear
from tesserl_nn_components.precision import in_full_precision, under_autocast

Activation = Callable[[], nn.Module]


class MLP(nn.Module):
    """Linear layers with an activation after each hidden one.

    It behaves like rlpyt's ``MlpModel`` (Stooke & Abbeel 2019, arXiv:1909.01500): with ``out_features`` the last layer
    is linear; without it the output is the activated last hidden layer. Even under autocast the linear output layer
    computes in the dtype of its parameters, because values and logits need the precision.

    Args:
        in_features: width of the input.
        hidden_sizes: widths of the hidden layers; an int for one layer, an empty sequence or None for no hidden layer.
        out_features: width of the linear output layer; None for no such layer. ``MLP(n, [], m)`` is a linear model.
        activation: makes the activation module, e.g. ``nn.ReLU``.
        layer_norm: puts a LayerNorm between each hidden linear layer and its activation.
        noisy: makes every linear layer a :class:`NoisyLinear`.

    Raises:
        ValueError: if a width is below 1, or there is neither a hidden nor an output layer.
    """

    def __init__(
        self,
        in_features: int,
        hidden_sizes: int | Sequence[int] | None,
        out_features: int | None = None,
        *,
        activation: Activation = nn.ReLU,
        layer_norm: bool = False,
        noisy: bool = False,
    ) -> None:
        super().__init__()
        hidden = as_sizes(hidden_sizes)
        widths = [in_features, *hidden, *([] if out_features is None else [out_features])]
        if len(widths) == 1:
            raise ValueError(
                "MLP needs hidden_sizes or out_features, got hidden_sizes=[] and out_features=None; "
                "use nn.Identity for a network without layers"
            )
        if min(widths) < 1:
            raise ValueError(f"MLP widths must be at least 1, got {widths} (input, hidden, output)")
        linear = NoisyLinear if noisy else nn.Linear
        layers: list[nn.Module] = []
        for index, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
            layers.append(linear(fan_in, fan_out))
            if index < len(hidden):
                layers += [nn.LayerNorm(fan_out), activation()] if layer_norm else [activation()]
        self.in_features = in_features
        self.out_features = widths[-1]
        self.layers = nn.Sequential(*layers)
        self._has_output = out_features is not None

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[*B, in_features]`` to ``[*B, out_features]``.

        Raises:
            TypeError: if ``features`` is not a tensor of the dtype of the weights.
            ValueError: if the last size of ``features`` is not ``in_features``.
        """
        try:
            return self._run(features)
        except (AttributeError, RuntimeError, TypeError):
            explain_features(features, self.in_features, next(self.parameters()).dtype)
            raise

    def _run(self, features: Tensor) -> Tensor:
        # without calling the container, which would cost 2 % of a small update
        if not self._has_output or not under_autocast(features.device.type):
            return run_layers(child(self, "layers")._modules.values(), features)
        *hidden, output = self.layers
        return in_full_precision(output, run_layers(hidden, features))


def as_sizes(sizes: int | Sequence[int] | None) -> list[int]:
    """Return layer widths as a list; an int is one layer, None is no layer."""
    if sizes is None:
        return []
    return [sizes] if isinstance(sizes, int) else list(sizes)
