"""The contract of torchrl's losses; the checks follow the ideas of LossModuleTestBase in torchrl's own tests."""

import copy

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from tesserl_iqn import QuantileNetwork
from tesserl_nn_components import ImpalaCNN

COEFFICIENTS = ("discount", "munchausen_alpha", "munchausen_temperature", "munchausen_clip")
KEYS = {
    "action": "action",
    "reward": "reward",
    "terminated": "terminated",
    "steps_to_next_obs": "steps_to_next_obs",
    "priority": "td_error",
    "priority_weight": "priority_weight",
}


def test_keys_have_their_defaults_and_can_be_set_one_by_one_and_together(make_loss):
    loss = make_loss()
    assert {name: getattr(loss.tensor_keys, name) for name in KEYS} == KEYS
    for name in KEYS:
        changed = copy.deepcopy(loss)
        changed.set_keys(**{name: "renamed"})
        assert getattr(changed.tensor_keys, name) == "renamed"
        changed.set_keys(**{name: None})
        assert getattr(changed.tensor_keys, name) == KEYS[name]
    loss.set_keys(**dict.fromkeys(KEYS, "renamed"))
    assert {getattr(loss.tensor_keys, name) for name in KEYS} == {"renamed"}
    with pytest.raises(ValueError, match="unknown_key is not an accepted tensordict key"):
        loss.set_keys(unknown_key="renamed")


def test_nested_keys_are_read_and_written(make_loss, make_batch):
    batch = make_batch(6)
    nested = TensorDict({"agent": {"act": batch["action"], "weight": torch.full((6, 1), 0.5)}}, [6])
    nested["observation"], nested["next"] = batch["observation"], batch["next"]
    loss = make_loss(noisy=False)
    results = []
    for data in (batch, nested):
        torch.manual_seed(0)
        results.append(loss(data)["loss"])
        loss.set_keys(action=("agent", "act"), priority=("agent", "error"), priority_weight=("agent", "weight"))
    torch.testing.assert_close(results[1], results[0] / 2)
    torch.testing.assert_close(nested["agent", "error"], batch["td_error"])


@pytest.mark.parametrize("network", ["vector", "spectral"])
def test_reset_parameters_recursive_draws_every_parameter_anew(make_loss, make_batch, network):
    encoder = ImpalaCNN((1, 8, 8), channels=[2], spectral_norm="all")
    loss = make_loss(QuantileNetwork(encoder, 3, hidden_sizes=()) if network == "spectral" else None)
    if network == "vector":
        loss.value_network.body.normalizer.update(torch.randn(50, 5) + 3)
    kept = {name: value.clone() for name, value in loss.state_dict().items() if "normalizer" in name}
    with torch.no_grad():
        for parameter in [*loss.parameters(), *loss.target_value_network.parameters()]:
            parameter.add_(1000)
    before = [parameter.clone() for parameter in loss.parameters()]
    loss.reset_parameters_recursive()
    state = loss.state_dict()
    for old, new in zip(before, loss.parameters(), strict=True):
        assert (new != old).any()
        assert new.abs().max() < 10
    for name, value in kept.items():
        assert torch.equal(state[name], value)
    for online, target in zip(
        loss.value_network.state_dict().values(), loss.target_value_network.state_dict().values(), strict=True
    ):
        assert torch.equal(online, target)
    if network == "vector":
        assert loss(make_batch(6))["loss"].isfinite()
    for module in loss.value_network.modules():  # singular vectors are those of the new weights
        if hasattr(module, "power_iteration"):
            matrix = module.weight.detach().flatten(1)
            found = torch.dot(module.u, torch.mv(matrix, module.v))
            torch.testing.assert_close(found, torch.linalg.matrix_norm(matrix, 2), rtol=0.05, atol=0)


class Matrix(nn.Module):
    """A body with a parameter and no way to initialise it anew."""

    in_keys, out_features = ("observation",), 7

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(5, 7))

    def forward(self, observation):
        return observation @ self.matrix


def test_reset_refuses_a_module_that_cannot_be_reset_and_changes_nothing(make_loss):
    loss = make_loss(QuantileNetwork(Matrix(), 3, hidden_sizes=[4]))
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    with pytest.raises(TypeError, match="every module with parameters must have reset_parameters, got none in body"):
        loss.reset_parameters_recursive()
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())


def test_reset_forgets_the_means_of_self_losses(make_loss, make_batch):
    loss = make_loss(self_loss_clamp_ratio=4.0)
    loss(make_batch(6))
    assert loss.self_loss_mean > 0
    loss.reset_parameters_recursive()
    assert loss.self_loss_mean == loss.clamped_self_loss_mean == 0


def test_out_keys_can_be_selected_and_reset(make_loss, make_batch):
    loss, batch = make_loss(), make_batch(6)
    assert loss.out_keys == ["loss"]
    assert loss.select_out_keys("loss") is loss
    assert set(loss(batch).keys()) == {"loss"}
    assert loss(**entries(loss, batch)).dim() == 0
    with pytest.raises(ValueError, match="Can't select non existent key: other"):
        loss.select_out_keys("other")
    loss.reset_out_keys()
    assert loss.out_keys == ["loss"]
    assert set(loss(batch).keys()) == {"loss"}
    assert type(loss)(loss.value_network).out_keys == ["loss"]


def entries(loss, batch):
    return {"_".join(key) if isinstance(key, tuple) else key: batch[key] for key in loss.in_keys}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_reductions_are_of_the_same_elements(make_loss, make_batch, reduction):
    batch = make_batch(6)
    results = {}
    for name in ("none", reduction):
        torch.manual_seed(0)
        results[name] = make_loss(noisy=False, reduction=name)(batch)["loss"]
    each = results["none"]
    expected = {"mean": each.mean(), "sum": each.sum(), "none": each}
    assert each.shape == (6,)
    assert each.unique().numel() == 6
    torch.testing.assert_close(results[reduction], expected[reduction])


@pytest.mark.parametrize("has_entry", [True, False])
def test_a_locked_batch_gives_the_same_loss_and_takes_priorities_where_it_has_the_entry(
    make_loss, make_batch, has_entry
):
    loss, batch = make_loss(noisy=False), make_batch(6)
    locked = batch.copy()
    if has_entry:
        locked["td_error"] = torch.zeros(6)
    locked.lock_()
    losses = []
    for data in (batch, locked):
        torch.manual_seed(0)
        losses.append(loss(data)["loss"])
    assert torch.equal(*losses)
    assert ("td_error" in locked) == has_entry
    if has_entry:
        assert torch.equal(locked["td_error"], batch["td_error"])


def test_a_call_changes_nothing_of_its_input_but_the_priority(make_loss, make_batch):
    loss, batch = make_loss(num_blocks=2), make_batch(6, num_blocks=2)
    before = batch.clone()
    loss(batch)
    assert set(batch.keys()) - set(before.keys()) == {"td_error"}
    assert (batch.exclude("td_error") == before).all()


def test_functional_parameters_are_those_of_the_networks(make_loss, make_batch):
    loss, other = make_loss(), make_loss()
    assert loss.functional
    assert loss.get_stateful_net("value_network", copy=False) is loss.value_network
    copied = loss.get_stateful_net("value_network")
    assert copied is not loss.value_network
    loss.from_stateful_net("value_network", other.value_network)
    for parameter, source in zip(loss.value_network.parameters(), other.value_network.parameters(), strict=True):
        assert torch.equal(parameter, source)
    with loss.value_network_params.to_module(loss.value_network):
        assert loss(make_batch(6))["loss"].isfinite()


def test_coefficients_are_buffers_that_take_numbers_and_keep_their_precision(make_loss, make_batch):
    loss = make_loss(munchausen_alpha=0.9, discount=0.997)
    buffers = dict(loss.named_buffers())
    assert not set(COEFFICIENTS) & loss.state_dict().keys()
    for number, name in enumerate(COEFFICIENTS):
        buffer = buffers[name]
        setattr(loss, name, 0.5 if name != "munchausen_clip" else -0.5)
        assert getattr(loss, name) is buffer, number
        assert buffer.abs() == 0.5
    loss.discount = 0.997
    for changed in (loss.to(torch.bfloat16), loss.double(), copy.deepcopy(loss).float()):
        assert changed.discount.dtype == torch.float64
        assert changed.discount.item() == 0.997


def test_a_compiled_loss_follows_a_schedule_without_compiling_again(make_loss, make_batch):
    loss, batch, graphs = make_loss(noisy=False), make_batch(6), []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(lambda data: loss(data)["loss"], fullgraph=True, backend=backend)
    results = []
    for discount in (0.9, 0.2, 0.9):
        loss.discount = discount
        torch.manual_seed(0)
        results.append(compiled(batch.clone()).item())
    assert len(graphs) == 1
    assert results[0] == results[2] != results[1]


def test_a_schedule_of_the_discount_reaches_the_targets(make_loss, make_batch):
    loss, batch = make_loss(noisy=False), make_batch(6)
    batch["next", "reward"].zero_()
    loss.discount = 0.0
    loss(batch)
    with torch.no_grad():
        nn.init.zeros_(loss.value_network.head.advantage.layers[-1].weight)
        nn.init.zeros_(loss.value_network.head.value.layers[-1].weight)
        nn.init.zeros_(loss.value_network.head.advantage.layers[-1].bias)
        nn.init.zeros_(loss.value_network.head.value.layers[-1].bias)
    assert loss(batch)["loss"] == 0  # targets and predictions are 0
    loss.discount = 0.9
    batch["next", "terminated"].zero_()
    assert loss(batch)["loss"] > 0


@pytest.mark.parametrize("key", ["priority_weight", ("collector", "mask")])
@pytest.mark.parametrize("width", [2, 3])
def test_weights_and_masks_have_one_value_for_each_transition(make_loss, make_batch, key, width):
    batch = make_batch(6)
    batch[key] = torch.ones(6, width, dtype=torch.bool)
    with pytest.raises(ValueError, match="must have the shape of the steps"):
        make_loss()(batch)
