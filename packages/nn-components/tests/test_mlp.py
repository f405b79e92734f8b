import pytest
import torch
from torch import nn

from tesserl_nn_components import MLP, NoisyLinear
from tesserl_nn_components.calls import run_layers


def kinds(mlp):
    return [type(layer) for layer in mlp.layers]


def test_last_layer_is_linear_when_out_features_is_given():
    mlp = MLP(5, [7, 9], 11)
    assert kinds(mlp) == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert mlp.out_features == 11
    assert mlp(torch.ones(3, 5)).shape == (3, 11)


def test_last_hidden_layer_is_activated_when_there_is_no_output_layer():
    mlp = MLP(5, [7, 9])
    assert kinds(mlp)[-1] is nn.ReLU
    assert mlp.out_features == 9


def test_an_int_is_one_hidden_layer():
    assert kinds(MLP(5, 7)) == kinds(MLP(5, [7])) == kinds(MLP(5, (7,)))


@pytest.mark.parametrize("hidden_sizes", [[], None, ()])
def test_without_hidden_layers_it_is_a_linear_model(hidden_sizes):
    assert kinds(MLP(5, hidden_sizes, 7)) == [nn.Linear]


def test_neither_hidden_nor_output_layer_is_refused():
    with pytest.raises(ValueError, match=r"needs hidden_sizes or out_features.*use nn\.Identity"):
        MLP(5, [])


@pytest.mark.parametrize("sizes", [(0, [7], 9), (5, [0], 9), (5, [7], 0)])
def test_width_below_one_is_refused(sizes):
    with pytest.raises(ValueError, match="must be at least 1"):
        MLP(*sizes)


def test_layer_norm_stands_before_every_activation_and_not_after_the_output():
    assert kinds(MLP(5, [7], 9, layer_norm=True, activation=nn.Tanh)) == [nn.Linear, nn.LayerNorm, nn.Tanh, nn.Linear]


def test_noisy_makes_every_linear_layer_noisy():
    assert kinds(MLP(5, [7], 9, noisy=True)) == [NoisyLinear, nn.ReLU, NoisyLinear]


def test_output_is_the_hand_written_network():
    mlp = MLP(2, [2], 1)
    with torch.no_grad():
        mlp.layers[0].weight.copy_(torch.tensor([[1.0, 2.0], [-1.0, 0.5]]))
        mlp.layers[0].bias.copy_(torch.tensor([0.0, 0.25]))
        mlp.layers[2].weight.copy_(torch.tensor([[3.0, 4.0]]))
        mlp.layers[2].bias.copy_(torch.tensor([-1.0]))
    # hidden = relu([1 + 4, -1 + 1 + .25]) = [5, .25]; output = 15 + 1 - 1
    assert mlp(torch.tensor([1.0, 2.0])).item() == pytest.approx(15.0)


@pytest.mark.parametrize("noisy", [False, True])
def test_under_autocast_the_output_layer_keeps_differences_that_bfloat16_has_not(noisy):
    mlp = MLP(3, [5], 2, noisy=noisy)
    last = mlp.layers[-1]
    weight, bias = (last.weight_mu, last.bias_mu) if noisy else (last.weight, last.bias)
    with torch.no_grad():
        weight[1] = weight[0]
        bias.copy_(torch.tensor([10.0, 10.01]))
    with torch.autocast("cpu", torch.bfloat16):
        values, hidden = mlp(torch.rand(7, 3)), MLP(3, [5])(torch.rand(7, 3))
    assert (values.dtype, hidden.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(values[:, 1] - values[:, 0], torch.full((7,), 0.01), rtol=0, atol=1e-5)


def test_any_leading_dimensions_pass_through():
    mlp = MLP(5, [7], 9)
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(mlp(x)[1, 2, 3], mlp(x[1, 2, 3]))


def test_a_call_past_the_modules_gives_the_same_numbers_and_gradients():
    mlp, features = MLP(5, [7, 7], 3, activation=nn.Tanh), torch.randn(11, 5)
    outputs = mlp(features), nn.Sequential(*mlp.layers)(features)
    assert torch.equal(*outputs)
    mine, expected = (torch.autograd.grad(each.square().sum(), list(mlp.parameters())) for each in outputs)
    assert all(map(torch.equal, mine, expected))


@pytest.mark.parametrize("index", [0, 1, 4])  # a linear layer, an activation, the output layer
def test_hooks_of_layers_and_of_all_modules_are_called(index):
    mlp, calls = MLP(5, [7, 7], 3), []
    layer, features = mlp.layers[index], torch.randn(11, 5, requires_grad=True)
    hooks = [
        layer.register_forward_hook(lambda *_: calls.append("forward")),
        layer.register_forward_pre_hook(lambda *_: calls.append("before")),
        layer.register_full_backward_hook(lambda *_: calls.append("backward")),
    ]
    mlp(features).sum().backward()
    assert sorted(calls) == ["backward", "before", "forward"]
    for hook in hooks:
        hook.remove()
    everywhere = nn.modules.module.register_module_forward_hook(lambda module, *_: calls.append(module))
    mlp(features)
    everywhere.remove()
    assert layer in calls


def test_layers_that_are_changed_are_called_as_modules():
    mlp, features = MLP(5, [7], 3), torch.randn(11, 5)
    nn.utils.parametrizations.weight_norm(mlp.layers[0])
    expected = nn.Sequential(*mlp.layers)(features)
    assert torch.equal(mlp(features), expected)
    mlp.layers[2].forward = lambda features: features.sum(dim=-1)
    assert mlp(features).shape == (11,)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@torch.no_grad()
def test_an_activation_is_written_over_nothing_but_the_output_of_a_plain_linear_layer(activation):
    seen = []
    first, second = nn.Linear(5, 5), nn.Linear(5, 5)
    first.register_forward_hook(lambda *call: seen.append((call[2], call[2].clone())))
    features = torch.randn(3, 5)
    before = features.clone()
    layers = [activation(), first, activation(), nn.Identity(), activation(), second, nn.Identity(), activation()]
    assert torch.equal(run_layers(layers, features), nn.Sequential(*layers)(features))
    assert torch.equal(features, before)
    assert all(torch.equal(output, copy) for output, copy in seen)
