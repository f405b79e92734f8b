"""The base of losses: keys, coefficients, parameters, and what is checked about them."""

from copy import deepcopy
from dataclasses import dataclass

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import dispatch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from tesserl_policy import DirectLossModule, ReferencePolicy, masked_mean
from tesserl_policy.loss_module import check_reduction, is_used, reset_networks
from tesserl_policy.testing import check_loss_contract, check_reductions


class SquaredError(DirectLossModule):
    """A loss that keeps the contract."""

    @dataclass
    class _AcceptedKeys:
        target: str = "target"

    default_keys = _AcceptedKeys
    _coefficients = ("weight", "ceiling")

    def __init__(self, network, reference=None, weight=0.2, reduction="mean"):
        super().__init__()
        check_reduction(reduction)
        self.network, self.reference, self.reduction = network, reference, reduction
        self.weight, self.ceiling = weight, None
        self.set_keys()

    def _required_keys(self):
        return ["observation", self.tensor_keys.target]

    @property
    def _all_out_keys(self):
        return ["loss", "error"]

    @dispatch
    def forward(self, tensordict):
        return self._output(self.results(tensordict))

    def results(self, tensordict):
        weight = self._read_coefficients()["weight"]
        error = (self.network(tensordict["observation"]) - tensordict[self.tensor_keys.target]).square()
        loss = weight * error if is_used(weight) else torch.zeros_like(error)
        reduced = {"mean": loss.mean(), "sum": loss.sum(), "none": loss}[self.reduction]
        return {"loss": reduced, "error": masked_mean(error).detach()}


def make_loss(**options):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 1))
    return SquaredError(network, ReferencePolicy(network), **options)


@pytest.fixture
def batch():
    return TensorDict({"observation": torch.randn(7, 3), "target": torch.randn(7, 1)}, [7])


def test_a_loss_that_keeps_the_contract_passes_its_check(batch):
    check_all(make_loss, batch)


class Writes(SquaredError):
    def forward(self, tensordict):
        tensordict["error"] = torch.zeros(7)
        return super().forward(tensordict)


class Forgets(SquaredError):
    def _read_coefficients(self):
        return {"weight": 0.2}


class Doubles(SquaredError):
    def _output(self, results):
        if self.reduction == "sum":
            results["loss"] = 2 * results["loss"]
        return super()._output(results)


def test_a_direct_loss_goes_past_torchrls_way_in_unless_somebody_looks(batch, monkeypatch):
    loss, calls = make_loss(), []
    expected = loss(batch)
    original = SquaredError.forward
    monkeypatch.setattr(
        SquaredError, "forward", lambda *given, **named: (calls.append("forward"), original(*given, **named))[1]
    )
    loss._is_direct = True
    assert (loss(batch) == expected).all()
    assert not calls
    for hooked in (loss.register_forward_hook, loss.register_forward_pre_hook):
        hook = hooked(lambda *_: calls.append("hook"))
        assert (loss(batch) == expected).all()
        hook.remove()
    assert sorted(calls) == ["forward", "forward", "hook", "hook"]
    assert torch.equal(loss(observation=batch["observation"], target=batch["target"])[0], expected["loss"])


def test_a_subclass_that_does_more_in_forward_is_called_there(batch):
    loss = Writes(nn.Linear(3, 1))
    loss._is_direct = True
    loss(batch)
    assert torch.equal(batch["error"], torch.zeros(7))


def check_all(make, batch):
    check_loss_contract(make, batch)
    check_reductions(make, batch, num_valid=7)


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        (Writes, RuntimeError, "lock"),
        (Forgets, AssertionError, "weight must change the loss"),
        (Doubles, AssertionError, "loss must be the sum of its terms"),
    ],
)
def test_a_loss_that_breaks_the_contract_is_found(batch, kind, error, message):
    def make(**options):
        torch.manual_seed(0)
        return kind(nn.Linear(3, 1), **options)

    with pytest.raises(error, match=message):
        check_all(make, batch)


def test_a_coefficient_keeps_the_exact_number_until_somebody_writes_into_the_buffer():
    loss = make_loss(weight=0.2)
    for same in (loss, deepcopy(loss), deepcopy(loss).to(torch.bfloat16), deepcopy(loss).double()):
        assert same._read_coefficients()["weight"] == 0.2  # not the 0.200000003 of float32
    loss.weight.copy_(torch.tensor(0.1))
    assert loss._read_coefficients()["weight"] == pytest.approx(0.1)
    loss.weight = 0.3
    assert loss._read_coefficients()["weight"] == 0.3


def test_a_coefficient_can_be_none_and_become_a_number():
    loss = make_loss()
    assert loss.ceiling is None
    assert loss._read_coefficients()["ceiling"] is None
    loss.ceiling = 2
    assert loss._read_coefficients()["ceiling"] == 2.0
    assert loss.ceiling.shape == ()
    loss.ceiling = None
    assert loss.ceiling is None


def test_a_compiled_loss_follows_its_coefficients_without_being_compiled_anew(batch):
    loss, compilations = make_loss(), []

    def count(module, inputs):
        compilations.append(module)
        return module.forward

    compiled = torch.compile(lambda data: loss(data)["loss"], backend=count)
    for weight in (0.2, 0.5, 0.7):
        loss.weight = weight
        torch.testing.assert_close(compiled(batch), loss(batch)["loss"])
    assert len(compilations) == 1
    torch._dynamo.reset()


def test_frozen_layers_stay_and_layers_without_a_reset_are_named():
    class Custom(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.zeros(3))

    attention, frozen = nn.MultiheadAttention(4, 2), nn.Linear(2, 2).requires_grad_(False)
    kept = [entry.clone() for entry in frozen.parameters()]
    before = attention.in_proj_weight.clone()
    reset_networks([nn.Sequential(attention, frozen)])
    assert not torch.equal(attention.in_proj_weight, before)
    assert all(torch.equal(*pair) for pair in zip(kept, frozen.parameters(), strict=True))
    linear = nn.Linear(2, 2)
    before = linear.weight.clone()
    for other in (Custom(), spectral_norm(nn.Linear(2, 2))):
        with pytest.raises(
            TypeError, match=r"must have reset_parameters\(\), got (Custom|ParametrizationList) without"
        ):
            reset_networks([nn.Sequential(linear, other)])
    assert torch.equal(linear.weight, before)


def test_functional_parameters_and_unknown_reductions_are_refused():
    with pytest.raises(ValueError, match="parameters must be None, got functional ones"):
        make_loss().reset_parameters_recursive(TensorDict())
    with pytest.raises(ValueError, match="reduction must be one of mean, sum, none, got 'median'"):
        make_loss(reduction="median")
    with pytest.raises(ValueError, match=r"out_keys must be among \['loss', 'error'\], got \['losses'\]"):
        make_loss().select_out_keys("losses")
