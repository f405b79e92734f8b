"""Losses over pairs in closed form, against every pair by hand in float64."""

import json
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tesserl_iqn import quantile_huber_loss, quantile_loss
from tesserl_iqn.quantile_loss import absolute_td_error, quantile_losses

CASES = json.loads((Path(__file__).parent / "vectors" / "quantile_huber.json").read_text())["cases"]


@pytest.fixture
def closed_form(monkeypatch):
    """No table, however few pairs there are."""
    monkeypatch.setattr(quantile_loss, "TABLE_LIMIT", 0)


def every_pair(quantiles, taus, targets, kappa):
    """Loss, gradient by the quantiles and absolute error, written down pair by pair, in float64."""
    error = targets.double().unsqueeze(-2) - quantiles.double().unsqueeze(-1)
    size = error.abs()
    weight = torch.where(error < 0, 1 - taus.double().unsqueeze(-1), taus.double().unsqueeze(-1))
    if kappa == 0:
        loss, slope = size, error.sign()
    else:
        loss = torch.where(size <= kappa, error**2 / (2 * kappa), size - kappa / 2)
        slope = (error / kappa).clamp(-1, 1)
    num_targets = targets.shape[-1]
    return (weight * loss).sum((-2, -1)) / num_targets, -(weight * slope).sum(-1) / num_targets, size.mean((-2, -1))


def assert_exact(quantiles, taus, targets, kappa, tolerance=1e-6):
    quantiles = quantiles.clone().requires_grad_()
    loss, error = quantile_losses(quantiles, taus, targets, kappa=kappa)
    loss.sum().backward()
    expected = every_pair(quantiles.detach(), taus, targets, kappa)
    for name, mine, theirs in zip(("loss", "gradient", "error"), (loss, quantiles.grad, error), expected, strict=False):
        scale = theirs.abs().max().item() or 1.0
        torch.testing.assert_close(
            mine.double(), theirs, rtol=0, atol=tolerance * scale, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert not error.requires_grad


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
@pytest.mark.usefixtures("closed_form")
def test_closed_form_matches_the_reference(case):
    quantiles, taus, targets = (torch.tensor(case[name], dtype=torch.float64) for name in ("theta", "tau", "target"))
    loss, error = quantile_losses(quantiles, taus, targets, kappa=case["kappa"])
    torch.testing.assert_close(loss, torch.tensor(case["loss_per_sample"], dtype=torch.float64), rtol=0, atol=1e-12)
    expected = torch.tensor(case["abs_td_mean"], dtype=torch.float64)
    torch.testing.assert_close(error.mean(), expected.mean(), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("closed_form")
def test_two_targets_around_one_quantile_give_the_hand_computed_loss_and_gradient():
    quantiles = torch.tensor([[1.0]], requires_grad=True)
    # u = -3: .75 * (3 - 1/2); u = .5: .25 * .5 ** 2 / 2; gradients .75 and -.25 * .5; each halved
    loss, error = quantile_losses(quantiles, torch.tensor([[0.25]]), torch.tensor([[1.5, -2.0]]))
    loss.sum().backward()
    assert loss.item() == pytest.approx((1.875 + 0.03125) / 2)
    assert quantiles.grad.item() == pytest.approx((0.75 - 0.125) / 2)
    assert error.item() == pytest.approx(1.75)


@pytest.mark.parametrize("kappa", [0.0, 0.005, 0.5, 1.0, 3.0])
@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (1e4, 3.0), (-1e4, 0.1), (0.0, 1e4)])
@pytest.mark.parametrize("sizes", [(33, 47), (1, 7), (9, 1)])
@pytest.mark.usefixtures("closed_form")
def test_closed_form_is_exact_whatever_kappa_offset_and_scale(kappa, offset, scale, sizes):
    num, num_targets = sizes
    quantiles, targets = torch.randn(5, num) * scale + offset, torch.randn(5, num_targets) * scale + offset
    assert_exact(quantiles, torch.rand(5, num), targets, kappa)


@pytest.mark.parametrize("kappa", [0.0, 1.0])
@pytest.mark.usefixtures("closed_form")
def test_ties_and_bends_are_those_of_the_table(kappa):
    # whole numbers: quantiles lie on targets, and on targets shifted by kappa
    quantiles, targets = torch.randint(-3, 4, (6, 11)).float(), torch.randint(-3, 4, (6, 7)).float()
    assert_exact(quantiles, torch.rand(6, 11), targets, kappa)
    assert_exact(torch.full((6, 11), 2.0), torch.rand(6, 11), torch.full((6, 7), 2.0), kappa)


@pytest.mark.parametrize("kappa", [0.0, 1.0])
def test_the_table_is_exact_too(kappa):
    assert_exact(torch.randn(5, 7), torch.rand(5, 7), torch.randn(5, 9), kappa)


@pytest.mark.usefixtures("closed_form")
def test_autograd_of_the_closed_form_is_exact_to_the_second_order():
    quantiles = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    taus, targets = torch.rand(2, 6, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda q: quantile_huber_loss(q, taus, targets), quantiles)
    assert torch.autograd.gradgradcheck(lambda q: quantile_huber_loss(q, taus, targets), quantiles)


@pytest.mark.usefixtures("closed_form")
def test_leading_dimensions_of_the_closed_form_are_only_batch():
    quantiles, taus, targets = torch.randn(2, 3, 5), torch.rand(2, 3, 5), torch.randn(2, 3, 7)
    for losses in (quantile_losses(quantiles, taus, targets), [absolute_td_error(quantiles, targets)]):
        assert all(loss.shape == (2, 3) for loss in losses)
    flat = quantile_losses(quantiles[1, 2:], taus[1, 2:], targets[1, 2:])
    torch.testing.assert_close([loss[1, 2:] for loss in quantile_losses(quantiles, taus, targets)], list(flat))


@pytest.mark.parametrize("num", [7, 60])
def test_bfloat16_is_computed_in_float32(num):
    quantiles, taus, targets = torch.randn(3, num), torch.rand(3, num), torch.randn(3, num)
    narrow = [tensor.bfloat16() for tensor in (quantiles, taus, targets)]
    losses = quantile_losses(*narrow)
    assert [loss.dtype for loss in losses] == [torch.float32] * 2
    expected = quantile_losses(*(tensor.float() for tensor in narrow))
    torch.testing.assert_close(losses, expected)


@pytest.mark.parametrize("spread", [0.0, 1e-7, 1e-3])
@pytest.mark.usefixtures("closed_form")
def test_a_perfect_prediction_has_no_loss_and_no_negative_priority(spread):
    quantiles = 1e4 * torch.randn(50, 1) + spread * torch.randn(50, 1)
    loss, error = quantile_losses(quantiles.expand(-1, 60), torch.rand(50, 60), quantiles.expand(-1, 60))
    assert torch.equal(loss, torch.zeros(50))
    assert torch.equal(error, torch.zeros(50))
    near = quantiles + spread * torch.rand(50, 60)
    assert (quantile_losses(near, torch.rand(50, 60), near)[1] >= 0).all()


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.usefixtures("closed_form")
def test_what_is_not_finite_is_not_hidden(place):
    tensors = [torch.randn(3, 6), torch.rand(3, 6), torch.randn(3, 6)]
    tensors[place][1, 2] = torch.nan
    loss = quantile_huber_loss(*tensors)
    assert loss.isnan().tolist() == [False, True, False]


@pytest.mark.usefixtures("closed_form")
def test_closed_form_compiles_without_a_graph_break():
    tensors = torch.randn(3, 6), torch.rand(3, 6), torch.randn(3, 5)
    compiled = torch.compile(quantile_losses, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*tensors), quantile_losses(*tensors))


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest result."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.numel = max([self.numel, *sizes])
        return result


def test_the_table_is_made_for_few_quantiles_and_never_for_many():
    for num, table in ((8, True), (200, False)):
        quantiles = torch.randn(3, num, requires_grad=True)
        with LargestTensor() as largest:
            quantile_huber_loss(quantiles, torch.rand(3, num), torch.randn(3, num)).sum().backward()
        assert (largest.numel >= 3 * num * num) == table
        assert table or largest.numel <= 3 * 3 * (num + 1)


@pytest.mark.usefixtures("closed_form")
def test_numpy_and_torch_sort_to_the_same_loss(monkeypatch):
    quantiles, targets = torch.randn(4, 50).round(decimals=1).requires_grad_(), torch.randn(50, 4).T  # with ties
    taus = torch.rand(4, 50)
    results = []
    for array in (quantile_loss._as_array, lambda values: None):
        monkeypatch.setattr(quantile_loss, "_as_array", array)
        loss = quantile_huber_loss(quantiles, taus, targets)
        results.append((loss, torch.autograd.grad(loss.sum(), quantiles)[0]))
    torch.testing.assert_close(*results)


@pytest.mark.usefixtures("closed_form")
def test_closed_form_works_under_vmap_and_functional_gradients():
    quantiles, taus, targets = torch.randn(3, 4, 60), torch.rand(3, 4, 60), torch.randn(3, 4, 60)
    expected = quantile_huber_loss(quantiles, taus, targets)
    torch.testing.assert_close(torch.vmap(quantile_huber_loss)(quantiles, taus, targets), expected)

    leaf = quantiles.clone().requires_grad_()
    quantile_huber_loss(leaf, taus, targets).sum().backward()
    gradient = torch.func.grad(lambda values: quantile_huber_loss(values, taus, targets).sum())(quantiles)
    torch.testing.assert_close(gradient, leaf.grad)
