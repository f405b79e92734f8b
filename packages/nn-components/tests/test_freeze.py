import copy
import pickle

import pytest
import torch
from torch import nn

from tesserl_nn_components import ConcatFusion, VectorEncoder, freeze


def network():
    return nn.ModuleDict(
        {
            "encoder": nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)),
            "head": nn.Linear(3, 2),
        }
    )


def test_frozen_part_has_no_gradient_and_the_rest_keeps_its_own():
    net = network()
    freeze(net, ["encoder"])
    assert not any(p.requires_grad for p in net["encoder"].parameters())
    assert all(p.requires_grad for p in net["head"].parameters())


def test_frozen_part_stays_in_evaluation_mode_at_every_depth():
    net = network()
    freeze(net, ["encoder"])
    net.train()
    assert net.training
    assert net["head"].training
    assert not any(part.training for part in net["encoder"].modules())
    assert net["encoder"].train() is net["encoder"]
    assert not net["encoder"].training


def test_statistics_and_dropout_of_a_frozen_part_rest():
    net = network()
    freeze(net, ["encoder"])
    net.train()
    x = torch.randn(8, 3)
    assert torch.equal(net["encoder"](x), net["encoder"](x))
    assert net["encoder"][1].num_batches_tracked == 0


def test_running_normaliser_of_a_frozen_encoder_rests():
    body = ConcatFusion(vector=VectorEncoder(3, hidden_sizes=[4], running=True))
    freeze(body, ["vector.normalizer"])
    body.train()
    body.vector.normalizer.update(torch.randn(5, 3))
    assert body.vector.normalizer.count == 0


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"])
def test_copies_stay_frozen_on_their_own(twin):
    net = network()
    freeze(net, ["encoder"])
    other = twin(net)
    other.train()
    assert not other["encoder"][2].training
    assert other["encoder"].train() is other["encoder"]
    assert other["encoder"].train() is not net["encoder"]


def test_a_single_parameter_can_be_frozen():
    net = network()
    freeze(net, ["head.bias"])
    assert not net["head"].bias.requires_grad
    assert net["head"].weight.requires_grad


def test_unknown_names_are_refused_and_nothing_is_frozen():
    net = network()
    with pytest.raises(ValueError, match=r"\['vison'\].*its parts are \['encoder', 'head'\]"):
        freeze(net, ["encoder", "vison"])
    assert all(p.requires_grad for p in net.parameters())


def test_freezing_twice_is_freezing_once():
    net = network()
    freeze(net, ["encoder"])
    freeze(net, ["encoder", "encoder.0"])
    net.train()
    assert not net["encoder"].training
