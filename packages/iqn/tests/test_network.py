"""The quantile network around any body."""

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from tesserl_iqn import CosineEmbedding, QuantileNetwork
from tesserl_iqn.network import is_affine
from tesserl_nn_components import NoisyLinear, VectorEncoder

EMBEDDING = json.loads((Path(__file__).parent / "vectors" / "iqn_cosine_embedding.json").read_text())


class CountingBody(VectorEncoder):
    """Counts its forward passes."""

    def __init__(self):
        super().__init__(5, hidden_sizes=[7])
        self.calls = 0

    def forward(self, observation):
        self.calls += 1
        return super().forward(observation)


class TwoInputs(nn.Module):
    """A body of a picture and a vector."""

    def __init__(self):
        super().__init__()
        self.in_keys = ["pixels", "observation"]
        self.out_features = 7
        self.linear = NoisyLinear(9, 7)

    def forward(self, pixels, observation):
        return self.linear(torch.cat([pixels.flatten(-3).float() / 255, observation], dim=-1))


def network(**options):
    return QuantileNetwork(VectorEncoder(5, hidden_sizes=[7]), 3, **{"hidden_sizes": (11,), **options})


@pytest.mark.parametrize("start", [0, 1])
def test_embedding_and_product_match_the_reference(start):
    expected = EMBEDDING[f"start{start}"]
    embedding = CosineEmbedding(EMBEDDING["n"], 3, start=start)
    embedding.load_state_dict({"weight": torch.tensor(EMBEDDING["W"]), "bias": torch.tensor(EMBEDDING["b"])})
    taus = torch.tensor(EMBEDDING["tau"])
    torch.testing.assert_close(embedding(taus), torch.tensor(expected["phi"]), rtol=0, atol=1e-5)

    body = VectorEncoder(3, hidden_sizes=[])  # the observation is the feature
    net = QuantileNetwork(body, 3, num_cosines=EMBEDDING["n"], cosine_start=start, head=nn.Identity())
    net.embedding = embedding
    product = net(torch.tensor(EMBEDDING["state"]), taus)
    torch.testing.assert_close(product, torch.tensor(expected["hadamard"]), rtol=0, atol=1e-5)


def test_the_embedding_may_leak_below_zero():
    options = {"num_cosines": 4, "cosine_start": 1, "head": nn.Identity()}
    net = QuantileNetwork(VectorEncoder(3, hidden_sizes=[]), 3, cosine_activation="leaky_relu", **options)
    weight, bias = net.embedding.weight, net.embedding.bias
    state, taus = torch.randn(2, 3), torch.tensor([[0.0, 0.3], [0.5, 1.0]])
    cosines = torch.stack([torch.cos(torch.pi * i * taus) for i in (1, 2, 3, 4)], dim=-1)
    linear = cosines @ weight.T + bias
    assert (linear < 0).any()
    expected = torch.where(linear >= 0, linear, 0.01 * linear)
    torch.testing.assert_close(net.embedding(taus), expected)
    torch.testing.assert_close(net(state, taus), state.unsqueeze(1) * expected)
    plain = QuantileNetwork(VectorEncoder(3, hidden_sizes=[]), 3, **options)
    plain.load_state_dict(net.state_dict())  # the activation is not among the weights
    torch.testing.assert_close(plain.embedding(taus), linear.clamp(min=0))


def test_the_gradient_passes_an_embedding_below_zero_if_it_leaks():
    taus = torch.full((1, 1), 0.5)
    gradients = []
    for activation in ("relu", "leaky_relu"):
        embedding = CosineEmbedding(4, 3, activation=activation)
        with torch.no_grad():
            embedding.bias.fill_(-9)  # all of them are below 0
        embedding(taus).sum().backward()
        gradients.append(embedding.bias.grad.tolist())
    assert gradients == [[0, 0, 0], pytest.approx([0.01] * 3)]


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize(("num_blocks", "tail"), [(None, (3,)), (2, (2, 3))])
@pytest.mark.parametrize("hidden_sizes", [(), (11,), (11, 13)])
def test_quantiles_have_one_value_for_each_tau_block_and_action(dueling, num_blocks, tail, hidden_sizes):
    net = network(dueling=dueling, num_blocks=num_blocks, hidden_sizes=hidden_sizes)
    for batch in [(), (4,), (4, 6)]:
        assert net(torch.randn(*batch, 5), torch.rand(*batch, 9)).shape == (*batch, 9, *tail)


def test_leading_dimensions_are_only_batch():
    net = network(dueling=True, num_blocks=2)
    observation, taus = torch.randn(4, 6, 5), torch.rand(4, 6, 9)
    flat = net(observation.flatten(0, 1), taus.flatten(0, 1))
    torch.testing.assert_close(net(observation, taus).flatten(0, 1), flat)


def test_dueling_subtracts_the_mean_advantage_at_each_tau_and_block():
    net = network(dueling=True, num_blocks=2)
    features = net.features(torch.randn(4, 5))
    taus = torch.rand(4, 9)
    value = net.head.value(features.unsqueeze(-2) * net.embedding(taus))  # one for each block
    torch.testing.assert_close(net.quantiles(features, taus).mean(dim=-1), value)


def test_one_pass_of_the_body_serves_several_sets_of_taus():
    body = CountingBody()
    net = QuantileNetwork(body, 3, hidden_sizes=(11,))
    observation, first, second = torch.randn(4, 5), torch.rand(4, 9), torch.rand(4, 8)
    features = net.features(observation)
    together = [net.quantiles(features, first), net.quantiles(features, second)]
    assert body.calls == 1
    torch.testing.assert_close(together, [net(observation, first), net(observation, taus=second)])


def test_one_row_of_taus_serves_the_whole_batch():
    net, observation, row = network(), torch.randn(4, 6, 5), torch.rand(9)
    torch.testing.assert_close(net(observation, row), net(observation, row.expand(4, 6, 9)))


def test_tensordict_module_reads_the_keys_of_the_body_and_taus():
    net = QuantileNetwork(TwoInputs(), 3, hidden_sizes=(11,))
    assert net.in_keys == ["pixels", "observation", "taus"]
    inputs = TensorDict(
        {
            "pixels": torch.randint(0, 256, (4, 1, 2, 2), dtype=torch.uint8),
            "observation": torch.randn(4, 5),
            "taus": torch.rand(4, 9),
        },
        [4],
    )
    output = net.as_tensordict_module()(inputs)["quantile_values"]
    torch.testing.assert_close(output, net(inputs["pixels"], inputs["observation"], inputs["taus"]))


def test_noise_changes_only_when_it_is_drawn_and_zero_noise_gives_the_mean_weights():
    net = QuantileNetwork(TwoInputs(), 3, hidden_sizes=(11,), dueling=True, noisy=True)
    pixels, observation, taus = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.randn(4, 5), torch.rand(4, 9)
    mean = net(pixels, observation, taus)
    net.reset_noise(torch.Generator().manual_seed(1))
    first = net(pixels, observation, taus)
    assert not torch.allclose(first, mean)
    assert torch.equal(net(pixels, observation, taus), first)
    assert net.body.linear.epsilon_in.abs().min() > 0
    net.reset_noise()
    assert not torch.allclose(net(pixels, observation, taus), first)
    net.reset_noise(torch.Generator().manual_seed(1))
    assert torch.equal(net(pixels, observation, taus), first)
    net.zero_noise()
    assert torch.equal(net(pixels, observation, taus), mean)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_draws_noise_of_its_own(copied):
    net = network(noisy=True)
    net.reset_noise()
    observation, taus = torch.randn(4, 5), torch.rand(4, 9)
    before = net(observation, taus)
    twin = copied(net)
    assert torch.equal(twin(observation, taus), before)
    twin.reset_noise()
    assert not torch.allclose(twin(observation, taus), before)
    assert torch.equal(net(observation, taus), before)


def test_every_parameter_gets_a_gradient():
    net = network(dueling=True, noisy=True, num_blocks=2)
    net.reset_noise()
    net(torch.randn(40, 5), torch.rand(40, 9)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in net.parameters())


def test_bfloat16_is_finite_and_close():
    net = network(dueling=True)
    observation, taus = torch.randn(4, 5), torch.rand(4, 9)
    expected = net(observation, taus)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(net(observation, taus).float(), expected, rtol=0.05, atol=0.05)
    net.to(torch.bfloat16)
    torch.testing.assert_close(net(observation.bfloat16(), taus).float(), expected, rtol=0.05, atol=0.05)


def test_compiles_without_a_graph_break():
    net = network(dueling=True, noisy=True, num_blocks=2)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    observation, taus = torch.randn(4, 5), torch.rand(4, 9)
    torch.testing.assert_close(compiled(observation, taus), net(observation, taus))


def test_says_what_is_wrong():
    with pytest.raises(TypeError, match="body must have in_keys, got Linear without it; set"):
        QuantileNetwork(nn.Linear(5, 7), 3)
    with pytest.raises(ValueError, match="num_actions and num_blocks must be at least 1, got 0 and None"):
        QuantileNetwork(VectorEncoder(5, hidden_sizes=[7]), 0)
    with pytest.raises(ValueError, match="a given head is taken as it is, got dueling=True and noisy=False too"):
        network(dueling=True, head=nn.Identity())
    with pytest.raises(ValueError, match="start of the cosine index must be 0"):
        CosineEmbedding(64, 7, start=-1)
    with pytest.raises(ValueError, match="activation of the embedding must be relu or leaky_relu, got 'tanh'"):
        CosineEmbedding(64, 7, activation="tanh")
    with pytest.raises(ValueError, match="num_cosines must be at least 1, got 0"):
        CosineEmbedding(0, 7)
    with pytest.raises(ValueError, match=r"taus must have the batch shape of the features \(4,\) .* got \(3, 9\)"):
        network()(torch.randn(4, 5), torch.rand(3, 9))


def test_a_head_of_ones_own_takes_the_place_of_the_described_one():
    head = nn.Sequential(nn.Linear(7, 11), nn.Tanh(), nn.Linear(11, 6), nn.Unflatten(-1, (2, 3)))
    net = QuantileNetwork(VectorEncoder(5, hidden_sizes=[7]), 3, num_blocks=2, head=head)
    observation, taus = torch.randn(4, 5), torch.rand(4, 9)
    expected = head(net.features(observation).unsqueeze(1) * net.embedding(taus))
    assert expected.shape == (4, 9, 2, 3)
    torch.testing.assert_close(net(observation, taus), expected)


HEADS = {
    "hidden layer": {"hidden_sizes": (11,)},
    "linear": {"hidden_sizes": ()},
    "dueling": {"hidden_sizes": (), "dueling": True},
}
MORE = {"blocks": {"num_blocks": 2}, "noisy": {"noisy": True}, "both": {"num_blocks": 2, "noisy": True}, "neither": {}}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("more", MORE)
def test_action_values_are_the_means_of_the_quantiles(head, more):
    net = network(**HEADS[head], **MORE[more]).double()
    net.reset_noise()
    features = net.features(torch.randn(6, 5, dtype=torch.float64))
    for taus in (torch.rand(32, dtype=torch.float64), torch.rand(6, 32, dtype=torch.float64)):
        torch.testing.assert_close(net.action_value(features, taus), net.quantiles(features, taus).mean(dim=1))


def test_action_values_of_fixed_fractions_are_the_means_of_the_quantiles():
    net = network(num_fixed_quantiles=9, hidden_sizes=())
    features = net.features(torch.randn(6, 5))
    torch.testing.assert_close(net.action_value(features), net.quantiles(features).mean(dim=1))


def test_a_linear_head_sees_the_mean_of_the_fractions_alone_and_any_other_head_all_of_them():
    net, shapes = network(hidden_sizes=()), []
    features, taus = net.features(torch.randn(6, 5)), torch.rand(32)
    expected = net.quantiles(features, taus).mean(dim=1)
    assert is_affine(net.head)
    hook = net.head.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    torch.testing.assert_close(net.action_value(features, taus), expected)
    hook.remove()
    net.head = nn.Sequential(net.head, nn.ReLU())  # replaced after it was built
    assert not is_affine(net.head)
    torch.testing.assert_close(net.action_value(features, taus), net.quantiles(features, taus).mean(dim=1))
    assert shapes == [(6, 32, 7)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_action_values_of_networks_of_other_types(dtype):
    net = network(hidden_sizes=()).to(dtype)
    features, taus = net.features(torch.randn(6, 5, dtype=dtype)), torch.rand(32)
    value = net.action_value(features, taus)
    assert value.dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
    torch.testing.assert_close(value, net.quantiles(features, taus).to(value.dtype).mean(dim=1), rtol=0.02, atol=0.02)
