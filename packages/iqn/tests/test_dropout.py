"""Dropout belongs to the online network's learning passes: targets and actions are made without."""

import copy

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from tesserl_iqn import IQNLoss, QuantileNetwork, QuantilePolicy
from tesserl_nn_components import TransformerLayer


class Body(nn.Module):
    in_keys, out_features = ("observation",), 4

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, observation):
        return self.layer(observation)


class Attention(nn.MultiheadAttention):
    def forward(self, tokens):
        return super().forward(tokens, tokens, tokens)[0]


LAYERS = {
    "dropout": lambda: nn.Dropout(0.5),
    "transformer": lambda: nn.Sequential(nn.Unflatten(-1, (1, 4)), TransformerLayer(4, 2, dropout=0.5), nn.Flatten(-2)),
    "attention": lambda: nn.Sequential(nn.Unflatten(-1, (1, 4)), Attention(4, 2, dropout=0.5), nn.Flatten(-2)),
}


@pytest.fixture(params=LAYERS)
def network(request):
    torch.manual_seed(0)
    return QuantileNetwork(Body(LAYERS[request.param]()), 3, hidden_sizes=())


def drops(network):
    """Return whether two passes differ."""
    observation = torch.ones(64, 4)
    with torch.no_grad():
        return not torch.equal(network.features(observation), network.features(observation))


def test_targets_are_made_without_dropout(network):
    loss = IQNLoss(network)
    for state in (loss, loss.train(), copy.deepcopy(loss), loss.eval().train()):
        assert drops(state.value_network)
        assert not drops(state.target_value_network)
        assert state.target_value_network.head.training
    assert not drops(loss.eval().value_network)


def test_actions_are_chosen_without_dropout_and_learning_goes_on_with_it(network):
    policy = QuantilePolicy(network, tau_sampling="midpoints")
    batch = TensorDict({"observation": torch.ones(64, 4)}, [64])
    values = [policy(batch)["action_value"].clone() for _ in range(2)]
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=0)
    assert torch.equal(policy.act(batch["observation"]), policy.act(batch["observation"]))
    assert drops(network)


def test_no_dropout_is_no_work(network):
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif hasattr(module, "dropout"):
            module.dropout = 0.0
    assert QuantilePolicy(network)._learning_layers == ()
