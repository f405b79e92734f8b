"""The reference policy: frozen, synchronised or averaged, and in the state dict."""

import copy

import pytest
import torch
from torch import nn

from tesserl_grpo import GRPOLoss, ReferencePolicy


def network(value):
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    return fill(module, value)


def fill(module, value):
    with torch.no_grad():
        for entry in [*module.parameters(), module[1].running_mean]:
            entry.fill_(value)
    return module


def values(module):
    return {float(entry.detach().flatten()[0]) for entry in module.parameters()}


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


def test_a_moving_average_goes_a_part_of_the_way_and_takes_statistics_as_they_are():
    policy = network(0.0)
    reference = ReferencePolicy(policy, interval=1, rate=0.25)
    fill(policy, 8.0)
    reference.step(policy)
    assert values(reference.network) == {2.0}
    reference.step(policy)
    assert values(reference.network) == {3.5}
    assert (reference.network[1].running_mean == 8.0).all()
    assert all(not parameter.requires_grad for parameter in reference.parameters())


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


def test_its_log_probabilities_are_those_of_the_batch(policy, as_actor, make_batch):
    batch = make_batch((4, 2, 3, 1), padding=float("nan")).exclude("reference_log_prob")
    for actor in (policy, as_actor(policy)):
        loss = GRPOLoss(actor, kl_coef=0.3, reference=ReferencePolicy(actor))
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.add_(0.1)
        computed = loss(batch)
        log_probs = loss.reference_log_probs(batch)
        assert log_probs.shape == (4, 4)
        assert not log_probs.requires_grad
        torch.testing.assert_close(loss(batch.copy().set("reference_log_prob", log_probs)), computed)
        assert computed["kl"] > 0


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
        ReferencePolicy(network(1.0), **options)
