import copy
import pickle

import pytest
import torch
from torch import nn

from tesserl_nn_components import MLP, NoisyLinear, reset_noise, zero_noise


def noise(layer):
    return torch.cat([layer.epsilon_in, layer.epsilon_out])


def test_noise_is_the_outer_product_of_the_factors(vectors):
    case = vectors("noisy.json")
    layer = NoisyLinear(3, 2, sigma_init=case["sigma0"])
    layer.epsilon_in.copy_(torch.tensor(case["f_in"]))
    layer.epsilon_out.copy_(torch.tensor(case["f_out"]))
    sigma = case["sigma_init_w_in3"]
    weight = layer.weight_mu + sigma * torch.tensor(case["weight_eps"])
    bias = layer.bias_mu + case["sigma_init_b_fan_in"] * torch.tensor(case["bias_eps"])
    x = torch.randn(5, 3)
    torch.testing.assert_close(layer(x), x @ weight.T + bias)


def test_factors_are_the_signed_root_of_normal_draws(vectors, monkeypatch):
    case = vectors("noisy.json")
    monkeypatch.setattr(torch, "randn", lambda *_, **__: torch.tensor(case["eps_in"] + case["eps_out"]))
    layer = NoisyLinear(3, 2)
    layer.reset_noise()
    torch.testing.assert_close(layer.epsilon_in, torch.tensor(case["f_in"]))
    torch.testing.assert_close(layer.epsilon_out, torch.tensor(case["f_out"]))


def test_draws_have_the_moments_of_the_signed_root_of_a_normal():
    layer = NoisyLinear(100_000, 1)
    layer.reset_noise()
    # f(x)^2 = |x|, whose mean is sqrt(2/pi)
    assert layer.epsilon_in.mean().item() == pytest.approx(0, abs=0.01)
    assert layer.epsilon_in.square().mean().item() == pytest.approx((2 / torch.pi) ** 0.5, abs=0.01)


def test_noise_is_zero_until_drawn_and_no_mode_draws_it():
    layer = NoisyLinear(3, 2)
    x = torch.randn(5, 3)
    expected = nn.functional.linear(x, layer.weight_mu, layer.bias_mu)
    for mode in (True, False):
        layer.train(mode)
        torch.testing.assert_close(layer(x), expected)


def test_noise_stays_until_the_next_call_in_any_mode():
    layer = NoisyLinear(3, 2)
    layer.reset_noise()
    x = torch.randn(5, 3)
    first = layer(x)
    assert torch.equal(layer(x), first)
    assert torch.equal(layer.eval()(x), first)
    layer.reset_noise()
    assert not torch.allclose(layer(x), first)
    layer.zero_noise()
    torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight_mu, layer.bias_mu))


def test_initial_ranges():
    layer = NoisyLinear(16, 4, sigma_init=0.8)
    assert layer.weight_mu.abs().max() <= 0.25
    assert layer.weight_mu.abs().max() > 0.2
    torch.testing.assert_close(layer.weight_sigma, torch.full((4, 16), 0.2))
    torch.testing.assert_close(layer.bias_sigma, torch.full((4,), 0.2))


def test_generator_makes_draws_repeatable_and_leaves_the_global_one_alone():
    layer, other = NoisyLinear(3, 2), NoisyLinear(3, 2)
    state = torch.get_rng_state()
    layer.reset_noise(torch.Generator().manual_seed(7))
    other.reset_noise(torch.Generator().manual_seed(7))
    assert torch.equal(noise(layer), noise(other))
    assert torch.equal(torch.get_rng_state(), state)


def test_every_parameter_gets_its_gradient():
    layer = NoisyLinear(3, 2)
    layer.reset_noise()
    x = torch.randn(5, 3)
    layer(x).sum().backward()
    outer = torch.outer(layer.epsilon_out, layer.epsilon_in)
    torch.testing.assert_close(layer.weight_mu.grad, x.sum(0).expand(2, 3))
    torch.testing.assert_close(layer.weight_sigma.grad, x.sum(0) * outer)
    torch.testing.assert_close(layer.bias_mu.grad, torch.full((2,), 5.0))
    torch.testing.assert_close(layer.bias_sigma.grad, 5 * layer.epsilon_out)


def test_gradient_belongs_to_the_noise_of_the_forward_pass():
    layer = NoisyLinear(3, 2)
    layer.reset_noise()
    x = torch.randn(5, 3)
    bias_noise, outer = layer.epsilon_out.clone(), torch.outer(layer.epsilon_out, layer.epsilon_in)
    out = layer(x).sum()
    layer.reset_noise()
    out.backward()
    torch.testing.assert_close(layer.bias_sigma.grad, 5 * bias_noise)
    torch.testing.assert_close(layer.weight_sigma.grad, x.sum(0) * outer)


def test_without_bias_there_is_none():
    layer = NoisyLinear(3, 2, bias=False)
    layer.reset_noise()
    assert {name for name, _ in layer.named_parameters()} == {"weight_mu", "weight_sigma"}
    assert layer(torch.zeros(1, 3)).abs().sum() == 0


def test_noise_travels_in_state_dict_copy_and_pickle():
    layer = NoisyLinear(3, 2)
    layer.reset_noise()
    loaded = NoisyLinear(3, 2)
    loaded.load_state_dict(layer.state_dict())
    for twin in (loaded, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(noise(twin), noise(layer))


def test_module_level_helpers_reach_every_noisy_layer_and_each_gets_its_own_noise():
    network = nn.ModuleDict({"a": MLP(4, [4], 4, noisy=True), "b": nn.Sequential(NoisyLinear(4, 4), nn.Linear(4, 4))})
    layers = [layer for layer in network.modules() if isinstance(layer, NoisyLinear)]
    reset_noise(network, torch.Generator().manual_seed(3))
    draws = torch.stack([noise(layer) for layer in layers])
    assert len(layers) == 3
    assert len(torch.unique(draws, dim=0)) == 3
    zero_noise(network)
    assert all(noise(layer).abs().sum() == 0 for layer in layers)


def test_half_precision_noise_is_rounded_from_full_precision():
    layer, half = NoisyLinear(3, 2), NoisyLinear(3, 2).to(torch.bfloat16)
    for each in (layer, half):
        each.reset_noise(torch.Generator().manual_seed(5))
    assert half.epsilon_in.dtype == torch.bfloat16
    assert torch.equal(half.epsilon_in, layer.epsilon_in.to(torch.bfloat16))


@pytest.mark.parametrize("arguments", [{"in_features": 0}, {"out_features": 0}, {"sigma_init": -0.1}])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="at least"):
        NoisyLinear(**({"in_features": 3, "out_features": 2} | arguments))
