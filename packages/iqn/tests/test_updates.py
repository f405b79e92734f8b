"""Shrink and perturb: how far each parameter moves, and what stays."""

import copy

import pytest
import torch
from tensordict import TensorDict
from torchrl.objectives import HardUpdate, SoftUpdate

from tesserl_iqn import IQNLoss, PeriodicReset, QuantileNetwork, TargetUpdater, shrink_and_perturb
from tesserl_iqn.updates import last_layers
from tesserl_nn_components import MLP, Conv2dHead, ImpalaCNN, SpectralConv2d


def network(*, seed, dueling=True, noisy=True, body=None, hidden_sizes=(6,)):
    torch.manual_seed(seed)
    body = body or MLP(5, [7], 4)
    body.in_keys = getattr(body, "in_keys", ["observation"])
    return QuantileNetwork(body, 3, num_cosines=2, hidden_sizes=hidden_sizes, dueling=dueling, noisy=noisy)


@pytest.mark.parametrize(("dueling", "names"), [(True, ["head.advantage", "head.value"]), (False, ["head"])])
@pytest.mark.parametrize("hidden_sizes", [(), (6,), (6, 8)])
def test_the_last_layers_are_those_that_give_values(dueling, names, hidden_sizes):
    built = network(seed=0, dueling=dueling, hidden_sizes=hidden_sizes)
    found = last_layers(built)
    assert [name.startswith(stream) for name, stream in zip(found, names, strict=True)] == [True] * len(names)
    assert {built.get_submodule(name).out_features for name in found} == ({1, 3} if dueling else {3})


def test_the_momentum_of_sgd_shrinks_too():
    online, fresh = network(seed=0), network(seed=1)
    optimizer = torch.optim.SGD(online.parameters(), lr=0.1, momentum=0.9)
    online(torch.randn(8, 5), taus=torch.rand(8, 3)).square().sum().backward()
    optimizer.step()
    weight = next(online.get_submodule(last_layers(online)[0]).parameters())
    momentum = optimizer.state[weight]["momentum_buffer"].clone()
    shrink_and_perturb([online], fresh, factor=0.25, last_layer_factor=0.75, optimizer=optimizer)
    torch.testing.assert_close(optimizer.state[weight]["momentum_buffer"], 0.25 * momentum)


def test_weights_move_by_their_factors_and_moments_shrink_with_them():
    online, target, fresh = (network(seed=seed) for seed in range(3))
    online.body.requires_grad_(False)
    target.requires_grad_(False)
    optimizer = torch.optim.Adam([p for p in online.parameters() if p.requires_grad], lr=0.1)
    online(torch.randn(8, 5), taus=torch.rand(8, 3)).square().sum().backward()
    optimizer.step()
    before = [copy.deepcopy(module.state_dict()) for module in (online, target)]
    moments = {name: copy.deepcopy(optimizer.state[p]) for name, p in online.named_parameters() if p.requires_grad}
    shrink_and_perturb((online, target), fresh, factor=0.25, last_layer_factor=0.75, optimizer=optimizer)
    last = tuple(f"{name}." for name in last_layers(online))
    for module, old in zip((online, target), before, strict=True):
        for name, parameter in module.named_parameters():
            factor = 0.0 if name.startswith("body.") else 0.75 if name.startswith(last) else 0.25
            expected = (1 - factor) * old[name] + factor * fresh.get_parameter(name).detach()
            torch.testing.assert_close(parameter.detach(), expected)
            if module is online and factor:
                state = optimizer.state[parameter]
                torch.testing.assert_close(state["exp_avg"], (1 - factor) * moments[name]["exp_avg"])
                assert torch.equal(state["exp_avg_sq"], moments[name]["exp_avg_sq"])
        for name, buffer in module.named_buffers():
            assert torch.equal(buffer, old[name])  # the noise


def test_all_the_way_is_the_fresh_network_and_nothing_is_nothing():
    online, fresh = network(seed=0), network(seed=1)
    before = copy.deepcopy(online.state_dict())
    shrink_and_perturb([online], fresh, factor=0, last_layer_factor=0)
    assert all(torch.equal(value, before[name]) for name, value in online.state_dict().items())
    shrink_and_perturb([online], fresh, factor=1, last_layer_factor=1)
    for name, parameter in online.named_parameters():
        assert torch.equal(parameter, fresh.get_parameter(name))


def test_singular_vectors_follow_the_moved_weights():
    def body():
        return Conv2dHead((2, 6, 6), [3], [3], [1], [4], spectral_norm="all")

    online, fresh = network(seed=0, body=body()), network(seed=1, body=body())
    shrink_and_perturb([online], fresh, factor=0.9)
    [layer] = [module for module in online.modules() if isinstance(module, SpectralConv2d)]
    matrix = layer.weight.detach().flatten(1)
    value = torch.dot(layer.u, matrix @ layer.v)
    torch.testing.assert_close(value, torch.linalg.matrix_norm(matrix, ord=2), rtol=1e-3, atol=0)


def test_bad_input_is_refused():
    online = network(seed=0)
    with pytest.raises(ValueError, match=r"factor and last_layer_factor must be in \[0, 1\], got 0.1 and 1.5"):
        shrink_and_perturb([online], online, factor=0.1, last_layer_factor=1.5)
    with pytest.raises(ValueError, match="fresh must have the parameters of the networks, got others"):
        shrink_and_perturb([online], network(seed=1, dueling=False))


def loss_of(**options):
    encoder = Conv2dHead((1, 8, 8), [2], [3], [1], [7])
    encoder.in_keys = ["pixels"]
    if options:
        encoder = ImpalaCNN((1, 8, 8), channels=[2], spectral_norm="all")
    loss = IQNLoss(network(seed=0, body=encoder))
    for value in (loss.value_network, loss.target_value_network):
        value.reset_noise()
    with torch.no_grad():
        for parameter in loss.value_network.parameters():
            parameter.mul_(torch.rand_like(parameter))
    return loss


def pixels():
    return torch.randint(256, (6, 1, 8, 8), dtype=torch.uint8)


def test_a_hard_copy_brings_the_singular_vectors_of_its_weights_and_no_noise():
    loss = loss_of(spectral=True)
    online, target = loss.value_network, loss.target_value_network
    online.body(pixels())  # an iteration
    noise = {name: value.clone() for name, value in target.named_buffers() if "epsilon" in name}
    before, updater = copy.deepcopy(target.state_dict()), TargetUpdater(loss, interval=2)
    updater.update(1)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())
    updater.update(2)
    for name, value in target.state_dict().items():
        assert torch.equal(value, noise[name] if name in noise else online.state_dict()[name]), name
    seen = pixels()
    assert noise
    assert torch.equal(target.eval().body(seen), online.eval().body(seen))


@pytest.mark.parametrize("rate", [None, 0.25])
def test_the_updater_counts_and_moves_parameters_as_torchrls_do(rate):
    ours, theirs = loss_of(), loss_of()
    theirs.load_state_dict(ours.state_dict())
    updater = TargetUpdater(ours, interval=3, rate=rate)
    if rate is None:
        reference = HardUpdate(theirs, value_network_update_interval=1)
        reference.step()
    else:
        reference = SoftUpdate(theirs, tau=rate)
    theirs.load_state_dict(ours.state_dict())
    before = [parameter.clone() for parameter in ours.target_value_network.parameters()]
    for _ in range(2):
        updater.step()
    assert all(torch.equal(*pair) for pair in zip(before, ours.target_value_network.parameters(), strict=True))
    updater.step()
    reference.step()
    for mine, other in zip(
        ours.target_value_network.parameters(), theirs.target_value_network.parameters(), strict=True
    ):
        torch.testing.assert_close(mine, other)


def test_a_loss_with_an_updater_does_not_warn_that_it_has_none():
    loss = loss_of()
    TargetUpdater(loss, rate=0.5)
    following = {"pixels": pixels(), "reward": torch.ones(6, 1), "terminated": torch.zeros(6, 1, dtype=torch.bool)}
    batch = TensorDict({"pixels": pixels(), "action": torch.zeros(6, dtype=torch.int64), "next": following}, [6])
    assert loss(batch)["loss"].isfinite()  # warnings are errors


@pytest.mark.parametrize("options", [{"interval": 0}, {"rate": 0.0}, {"rate": 1.5}])
def test_an_updater_refuses_options_out_of_range(options):
    with pytest.raises(ValueError, match="interval must be at least 1 and rate in"):
        TargetUpdater(loss_of(), **options)


def test_a_periodic_reset_moves_both_networks_when_it_is_due():
    loss, made = loss_of(), []

    def fresh():
        made.append(copy.deepcopy(loss.value_network))
        with torch.no_grad():
            for parameter in made[-1].parameters():
                parameter.add_(1)
        return made[-1]

    resets = PeriodicReset(loss, fresh, interval=3, factor=0.5, last_layer_factor=1.0)
    before = copy.deepcopy(loss.state_dict())
    resets.update(1)
    assert not made
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())
    resets.update(3)
    assert len(made) == 1
    for each in (loss.value_network, loss.target_value_network):
        torch.testing.assert_close(each.head.value.layers[-1].bias_mu, made[0].head.value.layers[-1].bias_mu)
    online = loss.value_network.embedding.weight
    torch.testing.assert_close(online, before["value_network_params.embedding.weight"] + 0.5)
    with pytest.raises(ValueError, match="interval of resets must be at least 1, got 0"):
        PeriodicReset(loss, fresh, interval=0)
