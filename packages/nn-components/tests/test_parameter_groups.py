import pytest
import torch
from torch import nn

from tesserl_nn_components import ConcatFusion, VectorEncoder, freeze, parameter_groups


def network():
    return nn.ModuleDict(
        {"encoder": nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5)), "head": nn.Linear(5, 2), "scale": nn.Linear(1, 1)}
    )


def sizes(groups):
    return {group["name"]: sum(parameter.numel() for parameter in group["params"]) for group in groups}


def test_each_part_has_its_learning_rate_and_all_others_the_base():
    groups = parameter_groups(network(), {"encoder": 0.1, "head": 2.0}, 0.5)
    assert {group["name"]: group["lr"] for group in groups} == {"encoder": 0.05, "head": 1.0, "rest": 0.5}
    assert sizes(groups) == {"encoder": 3 * 4 + 4 + 4 * 5 + 5, "head": 5 * 2 + 2, "rest": 2}


def test_the_innermost_part_decides_whatever_the_order():
    for factors in ({"encoder": 0.1, "encoder.1": 0.2}, {"encoder.1": 0.2, "encoder": 0.1}):
        groups = parameter_groups(network(), factors, 1.0)
        assert sizes(groups) == {"encoder": 16, "encoder.1": 25, "rest": 14}
        assert [group["name"] for group in groups] == [*factors, "rest"]


def test_a_single_parameter_is_a_part():
    assert sizes(parameter_groups(network(), {"head.bias": 0.1}, 1.0))["head.bias"] == 2


def test_there_is_no_empty_rest():
    groups = parameter_groups(network(), {"encoder": 1.0, "head": 1.0, "scale": 1.0}, 1.0)
    assert [group["name"] for group in groups] == ["encoder", "head", "scale"]


def test_frozen_parameters_are_in_no_group_and_have_no_optimiser_state():
    net = network()
    freeze(net, ["encoder.0", "scale"])
    optimizer = torch.optim.Adam(parameter_groups(net, {"encoder": 0.1}, 0.5))
    net["head"](net["encoder"](torch.randn(7, 3))).sum().backward()
    optimizer.step()
    trained = {id(parameter) for parameter in optimizer.state}
    assert trained == {id(parameter) for part in (net["encoder"][1], net["head"]) for parameter in part.parameters()}


def test_a_step_moves_each_part_by_its_own_rate():
    net = network()
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    optimizer = torch.optim.SGD(parameter_groups(net, {"encoder": 0.5}, 0.25))
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in net.named_parameters():
        moved = 0.125 if name.startswith("encoder") else 0.25
        torch.testing.assert_close(before[name] - parameter, torch.full_like(parameter, moved))


def test_a_shared_parameter_is_in_one_group():
    net = network()
    net["twin"] = net["encoder"]
    assert sizes(parameter_groups(net, {"twin": 0.1}, 1.0)) == {"twin": 41, "rest": 14}


def test_names_are_those_of_freeze():
    body = ConcatFusion(
        vision=VectorEncoder(1, hidden_sizes=[2]), vector=VectorEncoder(3, hidden_sizes=[4], running=True)
    )
    assert sizes(parameter_groups(body, {"vector.mlp": 0.1}, 1.0)) == {"vector.mlp": 16, "rest": 4}
    with pytest.raises(ValueError, match=r"cannot give a learning rate to \['vison'\].*its parts are \['vision'"):
        parameter_groups(body, {"vison": 0.1}, 1.0)


@pytest.mark.parametrize("factor", [0.0, -0.1, float("nan"), float("inf")])
def test_a_factor_must_be_positive_and_finite(factor):
    with pytest.raises(ValueError, match=rf"positive and finite, got \['head={factor}'\]; freeze a part instead"):
        parameter_groups(network(), {"encoder": 0.1, "head": factor}, 1.0)


def test_the_base_rate_must_be_positive():
    with pytest.raises(ValueError, match=r"got \['lr=0\.0'\]"):
        parameter_groups(network(), {"head": 0.1}, 0.0)


def test_a_part_without_parameters_of_its_own_is_refused():
    net = network()
    freeze(net, ["head"])
    with pytest.raises(ValueError, match=r"part 'head' must have parameters of its own with a gradient, got none"):
        parameter_groups(net, {"head": 0.1}, 1.0)
    with pytest.raises(ValueError, match=r"part 'encoder' must have"):
        parameter_groups(net, {"encoder": 0.1, "encoder.0": 0.2, "encoder.1": 0.3}, 1.0)
