"""Networks and registered parameters keep one storage, whatever is done to the loss."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torchrl.objectives import HardUpdate, SoftUpdate

from tesserl_iqn import QuantileNetwork
from tesserl_nn_components import ImpalaCNN, VectorEncoder


def storage(tensor):
    return tensor.untyped_storage().data_ptr()


def tensors(module):
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def assert_tied(loss):
    online, target = tensors(loss.value_network), tensors(loss.target_value_network)
    for params, network in (
        (loss.value_network_params, online),
        (loss.target_value_network_params, target),
    ):
        entries = {".".join(key): entry for key, entry in params.items(True, True)}
        assert entries.keys() == network.keys()
        for name, entry in entries.items():
            assert storage(entry) == storage(network[name]), name
            assert entry.dtype == network[name].dtype, name
    for name in online:
        is_statistic = "normalizer" in name
        assert (storage(online[name]) == storage(target[name])) == is_statistic, name
    registered = {id(parameter) for parameter in loss.parameters()}
    assert registered == {id(parameter) for parameter in loss.value_network.parameters()}


def pickled(loss):
    return pickle.loads(pickle.dumps(loss))


def torch_saved(loss):
    file = io.BytesIO()
    torch.save(loss, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def loaded(loss):
    other = {name: entry + 1 for name, entry in loss.state_dict().items()}
    loss.load_state_dict(other)
    for name, entry in loss.state_dict().items():
        torch.testing.assert_close(entry, other[name])
    return loss


def stepped(loss):
    SoftUpdate(loss, tau=0.5).step()
    return loss


CHANGES = {
    "nothing": lambda loss: loss,
    "double": lambda loss: loss.double(),
    "bfloat16 and back": lambda loss: loss.to(torch.bfloat16).float(),
    "to a device": lambda loss: loss.to("cpu"),
    "shared memory": lambda loss: loss.share_memory(),
    "load_state_dict": loaded,
    "deepcopy": copy.deepcopy,
    "pickle": pickled,
    "torch.save": torch_saved,
    "target update": stepped,
    "deepcopy then double": lambda loss: copy.deepcopy(loss).double(),
    "pickle then load_state_dict": lambda loss: loaded(pickled(loss)),
    "double then deepcopy": lambda loss: copy.deepcopy(loss.double()),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_storage_stays_shared(make_loss, change):
    assert_tied(change(make_loss()))


@pytest.mark.parametrize("change", [copy.deepcopy, pickled])
def test_a_copy_has_the_values_and_nothing_else_of_the_original(make_loss, make_batch, change):
    loss, batch = make_loss(), make_batch(6)
    twin = change(loss)
    assert_tied(loss)
    results = []
    for each in (loss, twin):
        torch.manual_seed(0)
        results.append(each(batch)["loss"])
    torch.testing.assert_close(*results)
    before = {name: entry.clone() for name, entry in loss.state_dict().items()}
    for entry in twin.state_dict().values():
        entry.zero_()
    for name, entry in loss.state_dict().items():
        torch.testing.assert_close(entry, before[name])


def test_an_optimiser_copied_with_the_loss_steps_the_copy(make_loss, make_batch):
    loss = make_loss()
    optimizer = torch.optim.Adam(loss.parameters())
    twin, twin_optimizer = copy.deepcopy((loss, optimizer))
    before = [parameter.clone() for parameter in twin.value_network.parameters()]
    twin(make_batch(64))["loss"].backward()
    twin_optimizer.step()
    moved = [not torch.equal(*pair) for pair in zip(before, twin.value_network.parameters(), strict=True)]
    assert all(moved)
    assert_tied(twin)


def test_the_users_network_is_the_online_network_and_keeps_its_parameters(make_loss):
    network = QuantileNetwork(VectorEncoder(5, hidden_sizes=[7]), 3, hidden_sizes=(11,))
    parameters = list(network.parameters())
    loss = make_loss(network).double()
    assert loss.value_network is network
    assert [id(parameter) for parameter in network.parameters()] == [id(parameter) for parameter in parameters]


@pytest.mark.parametrize(
    "change",
    [
        lambda loss: loss.to(torch.bfloat16),
        lambda loss: loss.half().float(),
        lambda loss: loss.double().float(),
        lambda loss: copy.deepcopy(loss.half()),
        lambda loss: pickled(loss).to(torch.bfloat16),
    ],
)
def test_casts_of_a_loss_leave_statistics_exact(make_loss, change):
    loss = make_loss()
    loss.value_network.body.normalizer.update(torch.tensor([[1e4] * 5, [1e4 + 1] * 5]))
    loss = change(loss)
    assert_tied(loss)
    for network in (loss.value_network, loss.target_value_network):
        assert network.body.normalizer.mean.tolist() == [1e4 + 0.5] * 5
        assert network.body.normalizer.mean.dtype == torch.float64


def test_statistics_of_an_old_float32_state_load_and_stay_in_float64(make_loss):
    loss = make_loss(self_loss_clamp_ratio=4.0)
    state = loss.state_dict()
    old = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    old |= {name: torch.full_like(value, 2.5) for name, value in old.items() if "normalizer.mean" in name}
    old["self_loss_mean"] = torch.tensor(1.5)
    loss.load_state_dict(old)
    assert_tied(loss)
    assert loss.value_network.body.normalizer.mean.tolist() == [2.5] * 5
    assert loss.self_loss_mean == 1.5
    assert loss.value_network.body.normalizer.mean.dtype == loss.self_loss_mean.dtype == torch.float64


def test_statistics_that_change_reach_the_target(make_loss):
    loss = make_loss()
    loss.value_network.body.normalizer.update(torch.randn(100, 5) * 3 + 2)
    online, target = loss.value_network.body.normalizer, loss.target_value_network.body.normalizer
    assert target.count == 100
    for name in ("mean", "variance", "count"):
        assert torch.equal(getattr(online, name), getattr(target, name))


@pytest.mark.parametrize("norm", ["spectral", "batch"])
def test_power_iteration_and_batch_statistics_belong_to_each_network(make_loss, make_batch, norm):
    class Body(nn.Sequential):
        in_keys = ("observation",)
        out_features = 7

    linear = nn.Linear(5, 7)
    body = Body(spectral_norm(linear)) if norm == "spectral" else Body(linear, nn.BatchNorm1d(7))
    loss = make_loss(QuantileNetwork(body, 3, hidden_sizes=()))
    assert_tied(loss)
    buffers = [dict(network.named_buffers()) for network in (loss.value_network, loss.target_value_network)]
    before = [{name: buffer.clone() for name, buffer in each.items()} for each in buffers]
    loss(make_batch(16))
    for now, then in zip(buffers, before, strict=True):
        assert any(not torch.equal(now[name], then[name]) for name in now)
    assert_tied(loss)


def test_power_iteration_vectors_of_convolutions_belong_to_each_network(make_loss):
    encoder = ImpalaCNN((1, 8, 8), channels=[2], spectral_norm="all")
    loss = make_loss(QuantileNetwork(encoder, 3, hidden_sizes=()))
    assert any(name.endswith(".u") for name in tensors(loss.target_value_network))
    assert_tied(loss)


def test_a_hard_update_copies_the_weights_and_leaves_the_noise(make_loss, make_batch):
    loss = make_loss()
    updater = HardUpdate(loss, value_network_update_interval=1)
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.add_(1)
    loss(make_batch(6))
    noise = loss.target_value_network.head.value.layers[0].epsilon_in.clone()
    for _ in range(2):  # torchrl copies when its counter has reached the interval
        updater.step()
    for ours, theirs in zip(loss.value_network.parameters(), loss.target_value_network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(loss.target_value_network.head.value.layers[0].epsilon_in, noise)
