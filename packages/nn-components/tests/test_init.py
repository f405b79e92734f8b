import math

import pytest
import torch
from torch import nn

from tesserl_nn_components import MLP, Conv2dStack, orthogonal_init


@pytest.mark.parametrize(
    ("gain", "factor"), [("relu", math.sqrt(2)), ("tanh", 5 / 3), ("policy", 0.01), ("value", 1), (3.0, 3)]
)
def test_weights_are_orthogonal_with_the_named_gain_and_biases_zero(gain, factor):
    layer = orthogonal_init(nn.Linear(7, 5), gain)
    torch.testing.assert_close(layer.weight @ layer.weight.T, factor**2 * torch.eye(5), atol=1e-5, rtol=1e-5)
    assert layer.bias.abs().sum() == 0


def test_relu_is_the_default_and_convolutions_are_reached():
    stack = orthogonal_init(Conv2dStack(3, [4], [2], [1]))
    flat = stack.layers[0].weight.flatten(1)
    torch.testing.assert_close(flat @ flat.T, 2 * torch.eye(4), atol=1e-5, rtol=1e-5)


def test_spectral_norm_keeps_its_original_orthogonal():
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(5, 5))
    original = orthogonal_init(layer, 2.0).parametrizations.weight.original
    torch.testing.assert_close(original @ original.T, 4 * torch.eye(5), atol=1e-5, rtol=1e-5)


def test_noisy_layers_keep_their_own():
    mlp = MLP(5, [7], 3, noisy=True)
    before = [p.clone() for p in mlp.parameters()]
    orthogonal_init(mlp)
    assert all(torch.equal(old, new) for old, new in zip(before, mlp.parameters(), strict=True))


def test_layers_without_bias_are_fine():
    assert orthogonal_init(nn.Linear(3, 3, bias=False), 1.0).weight.det().abs().item() == pytest.approx(1, abs=1e-5)


def test_unknown_gain_is_refused():
    with pytest.raises(ValueError, match=r"one of \['policy', 'relu', 'tanh', 'value'\], got 'gelu'"):
        orthogonal_init(nn.Linear(3, 3), "gelu")
