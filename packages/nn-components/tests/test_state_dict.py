import pytest
import torch
from torch import nn

from tesserl_nn_components import MLP, strip_ddp_state_dict, update_state_dict


class Pair(nn.Module):
    def __init__(self, w, b):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))
        self.b = nn.Parameter(torch.tensor(b))


@pytest.mark.parametrize(("tau", "key"), [(1.0, "tau_1"), (0.25, "tau_0p25"), (0.0, "old")])
def test_update_agrees_with_the_reference(vectors, tau, key):
    case = vectors("rlpyt_misc.json")["update_state_dict"]
    module, new = Pair(**case["old"]), Pair(**case["new"])
    update_state_dict(module, new.state_dict(), tau)
    for name, value in case[key].items():
        torch.testing.assert_close(module.state_dict()[name], torch.tensor(value))
    assert new.w.tolist() == case["new"]["w"]


@pytest.mark.parametrize("tau", [-0.1, 1.5, float("nan")])
def test_tau_outside_the_unit_interval_is_refused(tau):
    with pytest.raises(ValueError, match=r"tau must be in \[0, 1\]"):
        update_state_dict(nn.Linear(2, 2), nn.Linear(2, 2).state_dict(), tau)


@pytest.mark.parametrize(("tau", "expected"), [(0.0, 10), (0.25, 20), (1.0, 20)])
def test_integer_buffers_are_copied_whenever_tau_is_above_zero(tau, expected):
    old, new = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    old.num_batches_tracked.fill_(10)
    new.num_batches_tracked.fill_(20)
    update_state_dict(old, new.state_dict(), tau)
    assert old.num_batches_tracked.item() == expected


def test_float_buffers_are_averaged():
    old, new = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    new.running_mean.fill_(4)
    update_state_dict(old, new.state_dict(), 0.25)
    assert old.running_mean.tolist() == [1, 1]


def test_a_full_update_replaces_values_that_are_not_finite():
    old, new = nn.Linear(2, 2), nn.Linear(2, 2)
    nn.init.constant_(old.weight, float("nan"))
    update_state_dict(old, new.state_dict())
    assert torch.equal(old.weight, new.weight)


def test_mismatches_are_listed_and_nothing_changes():
    module = MLP(3, [4], 2)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    other = MLP(3, [5], 2).state_dict()
    other["extra"] = other.pop("layers.2.bias")
    with pytest.raises(ValueError) as error:  # noqa: PT011
        update_state_dict(module, other, 0.5)
    assert "missing layers.2.bias; unexpected extra; layers.0.weight has shape (5, 3), the module's has (4, 3)" in str(
        error.value
    )
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_mismatch_is_an_error_at_tau_zero_too():
    with pytest.raises(ValueError, match="missing weight"):
        update_state_dict(nn.Linear(2, 2), {"bias": torch.zeros(2)}, 0.0)


def test_one_distributed_prefix_is_stripped(vectors):
    pairs = vectors("rlpyt_misc.json")["strip_ddp"]
    stripped = strip_ddp_state_dict({key: torch.tensor(i) for i, (key, _) in enumerate(pairs[:1] + pairs[2:])})
    assert list(stripped) == [new for _, new in pairs[:1] + pairs[2:]]
    assert list(strip_ddp_state_dict({pairs[1][0]: torch.zeros(1)})) == [pairs[1][1]]


def test_prefixed_keys_are_accepted_unless_told_otherwise():
    old, new = nn.Linear(2, 2), nn.Linear(2, 2)
    prefixed = {f"module.{key}": value for key, value in new.state_dict().items()}
    with pytest.raises(ValueError, match="missing weight"):
        update_state_dict(old, prefixed, strip_ddp=False)
    update_state_dict(old, prefixed)
    assert torch.equal(old.weight, new.weight)


def test_a_submodule_that_is_called_module_keeps_its_name():
    old, new = nn.ModuleDict({"module": nn.Linear(2, 2)}), nn.ModuleDict({"module": nn.Linear(2, 2)})
    update_state_dict(old, new.state_dict())
    assert torch.equal(old["module"].weight, new["module"].weight)


def test_sources_of_another_precision_are_rounded_into_place():
    old, new = nn.Linear(2, 2), nn.Linear(2, 2).double()
    weight = old.weight
    update_state_dict(old, new.state_dict(), 0.5)
    assert old.weight is weight
    assert old.weight.dtype == torch.float32
