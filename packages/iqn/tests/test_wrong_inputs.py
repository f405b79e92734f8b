"""Mistakes of a caller are named, with what was expected and what to do; none of them is an error of torch."""

import numpy as np
import pytest
import torch

from tesserl_iqn import QuantileNetwork, QuantilePolicy
from tesserl_nn_components import VectorEncoder


def network(**options):
    return QuantileNetwork(VectorEncoder(5, hidden_sizes=[7]), 3, hidden_sizes=(11,), **options)


WRONG_BATCHES = {
    "float action": ("action", torch.rand(6), TypeError, r"action must hold categories, int64, got torch.float32"),
    "action above": (
        "action",
        torch.full((6,), 3),
        ValueError,
        r"action must be in \[0, 3\), .* got values from 3 to 3",
    ),
    "action below": ("action", torch.full((6,), -1), ValueError, r"got values from -1 to -1; number actions from 0"),
    "width": (
        "observation",
        torch.zeros(6, 4),
        ValueError,
        r"observation must have the shape \[\*B, 5\], got \(6, 4\)",
    ),
    "integers": (
        "observation",
        torch.zeros(6, 5, dtype=torch.int64),
        TypeError,
        r"observation must be torch.float32 like the weights, got torch.int64; convert it with .to\(torch.float32\)",
    ),
    "next width": (("next", "observation"), torch.zeros(6, 4), ValueError, r"got \(6, 4\)"),
    "float flag": (
        ("next", "terminated"),
        torch.zeros(6, 1),
        TypeError,
        r"terminated must be bool, got torch.float32; convert it with .bool\(\)",
    ),
}


@pytest.mark.parametrize("munchausen", [False, True])
@pytest.mark.parametrize(("key", "entry", "kind", "message"), WRONG_BATCHES.values(), ids=WRONG_BATCHES.keys())
def test_a_wrong_entry_of_a_batch_is_named(make_loss, make_batch, key, entry, kind, message, munchausen):
    loss = make_loss(network(), munchausen_alpha=0.9 if munchausen else None)
    batch = make_batch(6)
    batch[key] = entry
    with pytest.raises(kind, match=message):
        loss(batch)


def test_a_dict_is_no_batch(make_loss, make_batch):
    with pytest.raises(TypeError, match=r"a batch must be a TensorDict, got a dict, .*; give TensorDict\(batch"):
        make_loss(network())(dict(make_batch(6).items()))
    with pytest.raises(TypeError, match=r"a batch must be a TensorDict, got dict; or call act\(\*tensors\)"):
        QuantilePolicy(network())({"observation": torch.zeros(2, 5)})


@pytest.mark.parametrize(
    ("inputs", "kind", "message"),
    [
        ([np.zeros((2, 5), np.float32)], TypeError, "observation must be a tensor, got ndarray; convert it with torch"),
        ([[[0.0] * 5]], TypeError, "observation must be a tensor, got list"),
        ([torch.zeros(2, 4)], ValueError, r"observation must have the shape \[\*B, 5\], got \(2, 4\)"),
        (
            [torch.zeros(2, 5).double()],
            TypeError,
            "observation must be torch.float32 like the weights, got torch.float64",
        ),
        ([], TypeError, r"act needs one tensor for each of \['observation'\], got 0"),
    ],
)
def test_a_wrong_observation_to_act_on_is_named(inputs, kind, message):
    with pytest.raises(kind, match=message):
        QuantilePolicy(network()).act(*inputs)


def test_a_body_of_another_package_gets_the_same_message_for_arrays():
    class Body(torch.nn.Linear):  # it has out_features
        in_keys = ("observation",)

    policy = QuantilePolicy(QuantileNetwork(Body(5, 7), 3))
    with pytest.raises(TypeError, match="observation must be a tensor, got ndarray"):
        policy.act(np.zeros((2, 5), np.float32))


@pytest.mark.parametrize("epsilon", [2, -0.1, float("nan"), torch.tensor([0.5, 1.5])])
def test_epsilon_out_of_range_is_refused_when_a_policy_is_made(epsilon):
    with pytest.raises(ValueError, match=r"epsilon must be in \[0, 1\], got "):
        QuantilePolicy(network(), epsilon=epsilon)


@pytest.mark.parametrize("temperature", [-1.0, float("nan")])
def test_temperature_out_of_range_is_refused_when_a_policy_is_made(temperature):
    with pytest.raises(ValueError, match="temperature must be at least 0, got "):
        QuantilePolicy(network(), temperature=temperature)


def test_a_network_without_taus_is_named():
    with pytest.raises(TypeError, match=r"a tensor is needed for each of \['observation', 'taus'\], got 1"):
        network()(torch.zeros(2, 5))
