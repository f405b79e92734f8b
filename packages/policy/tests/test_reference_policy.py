"""The reference policy: frozen, synchronised or averaged, never in training mode, and in the state dict."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from tesserl_policy import ReferencePolicy


class Spectral(nn.Linear):
    """A layer with power iteration under the names of `tesserl_nn_components.SpectralConv2d`."""

    def __init__(self, in_features, out_features):
        super().__init__(in_features, out_features, bias=False)
        self.register_buffer("u", torch.ones(out_features))

    @torch.no_grad()
    def power_iteration(self, num_iterations=1):
        for _ in range(num_iterations):
            v = nn.functional.normalize(self.weight.T @ self.u, dim=0)
            self.u.copy_(nn.functional.normalize(self.weight @ v, dim=0))

    def forward(self, features):
        if self.training:
            self.power_iteration()
        return features @ self.weight.T / (self.weight.T @ self.u).norm()


class Noisy(nn.Module):
    """A layer with noise under the names of `tesserl_nn_components.NoisyLinear`."""

    def __init__(self):
        super().__init__()
        self.register_buffer("epsilon", torch.ones(3))

    def zero_noise(self):
        self.epsilon.zero_()

    def forward(self, features):
        return features + self.epsilon


def network(value=1.0):
    return fill(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), value)


def fill(module, value):
    with torch.no_grad():
        for entry in [*module.parameters(), module[1].running_mean]:
            entry.fill_(value)
    return module


def values(module):
    return {float(entry.detach().flatten()[0]) for entry in module.parameters()}


def state(module):
    return {name: entry.clone() for name, entry in module.state_dict().items()}


def assert_same(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(entry, right[name]) for name, entry in left.items())


def test_a_frozen_reference_stays():
    policy = network(1.0)
    reference = ReferencePolicy(policy)
    fill(policy, 5.0)
    assert [reference.step(policy) for _ in range(5)] == [False] * 5
    assert values(reference.network) == {1.0}
    assert values(policy) == {5.0}


def test_it_follows_every_few_updates():
    policy = network(0.0)
    reference = ReferencePolicy(policy, interval=3)
    seen = []
    for update in range(1, 8):
        fill(policy, float(update))
        changed = reference.step(policy)
        seen.append((changed, *values(reference.network)))
    assert seen == [(False, 0), (False, 0), (True, 3), (False, 3), (False, 3), (True, 6), (False, 6)]
    assert reference.num_steps == 7


def test_a_moving_average_goes_a_part_of_the_way_and_takes_statistics_as_they_are():
    policy = network(0.0)
    reference = ReferencePolicy(policy, interval=1, rate=0.25)
    fill(policy, 8.0)
    policy[1].num_batches_tracked.fill_(4)
    reference.step(policy)
    assert values(reference.network) == {2.0}
    reference.step(policy)
    assert values(reference.network) == {3.5}
    assert (reference.network[1].running_mean == 8.0).all()
    assert reference.network[1].num_batches_tracked == 4
    assert all(not parameter.requires_grad for parameter in reference.parameters())


def test_it_can_move_at_once_without_counting():
    policy = network(0.0)
    reference = ReferencePolicy(policy)
    reference.move(fill(policy, 8.0), 0.25)
    assert values(reference.network) == {2.0}
    reference.move(policy)
    assert values(reference.network) == {8.0}
    assert reference.num_steps == 0


CHANGES_OF_MODE = {
    "nothing": lambda holder: holder,
    "train on the loss that holds it": lambda holder: holder.train(),
    "train on the reference": lambda holder: holder if holder["reference"].train() is holder["reference"] else None,
    "train on the copy": lambda holder: holder if list(holder["reference"].network.train()) else None,
    "train and eval and train": lambda holder: holder.train().eval().train(),
    "pickle": lambda holder: pickle.loads(pickle.dumps(holder)),
    "deepcopy": lambda holder: copy.deepcopy(holder).train(),
}


@pytest.mark.parametrize("change", CHANGES_OF_MODE.values(), ids=CHANGES_OF_MODE.keys())
def test_a_reference_is_never_in_training_mode_and_its_forward_moves_nothing(change):
    torch.manual_seed(0)
    policy = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), Spectral(3, 3)).train()
    reference = change(nn.ModuleDict({"reference": ReferencePolicy(policy)}))["reference"]
    before, x = state(reference), torch.randn(20, 2)
    outputs = [reference.network(x) for _ in range(3)]
    assert not any(module.training for module in reference.modules())
    assert torch.equal(outputs[0], outputs[1])  # no dropout
    assert torch.equal(outputs[0], outputs[2])
    assert_same(state(reference), before)
    assert policy.training
    policy(x)
    assert_same(state(reference), before)


def test_singular_vectors_of_torchs_spectral_norm_stay_too():
    policy = nn.Sequential(spectral_norm(nn.Linear(3, 3))).train()
    reference, x = ReferencePolicy(policy).train(), torch.randn(5, 3)
    before = state(reference)
    assert torch.equal(reference.network(x), reference.network(x))
    assert_same(state(reference), before)


def test_its_noise_is_zero_whatever_that_of_the_policy_is():
    policy = nn.Sequential(nn.Linear(3, 3), Noisy())
    reference = ReferencePolicy(policy, interval=1)
    x = torch.randn(5, 3)
    torch.testing.assert_close(reference.network(x), policy[0](x))
    reference.step(policy)
    torch.testing.assert_close(reference.network(x), policy[0](x))
    assert (policy[1].epsilon == 1).all()


@pytest.mark.parametrize("rate", [1.0, 0.3])
def test_its_singular_vectors_are_those_of_its_own_weights(rate):
    torch.manual_seed(0)
    policy = nn.Sequential(Spectral(4, 4))
    policy[0].power_iteration(500)
    reference = ReferencePolicy(policy, interval=1, rate=rate)
    with torch.no_grad():
        policy[0].weight.copy_(torch.diag(torch.tensor([1.0, 2.0, 30.0, 4.0])))
    policy[0].power_iteration(500)
    reference.step(policy)
    layer = reference.network[0]
    largest = torch.linalg.matrix_norm(layer.weight, ord=2)
    torch.testing.assert_close((layer.weight.T @ layer.u).norm(), largest, rtol=1e-4, atol=0)


def test_interval_and_copy_survive_in_the_state_dict():
    policy = network(1.0)
    reference = ReferencePolicy(policy, interval=3)
    fill(policy, 5.0)
    reference.step(policy)
    reference.step(policy)
    other = ReferencePolicy(network(9.0), interval=3)
    other.load_state_dict(copy.deepcopy(reference.state_dict()))
    assert values(other.network) == {1.0}
    assert other.step(policy)
    assert values(other.network) == {5.0}


def test_a_state_of_version_0_1_loads_under_either_name_of_its_counter():
    reference = ReferencePolicy(network(1.0), interval=3)
    for name in ("num_steps", "num_updates"):
        old = {**state(reference), name: torch.tensor(2)}
        if name != "num_steps":
            del old["num_steps"]
        other = nn.ModuleDict({"reference": ReferencePolicy(network(9.0), interval=3)})
        other.load_state_dict({f"reference.{key}": value for key, value in old.items()})
        assert other["reference"].num_steps == 2
        assert values(other["reference"].network) == {1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval": 0}, "interval must be None or at least 1, got 0; None never changes"),
        ({"rate": 0.0}, r"rate must be in \(0, 1\], got 0.0; 1 copies the policy"),
        ({"rate": 1.5}, r"rate must be in \(0, 1\], got 1.5"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ReferencePolicy(network(), **options)
