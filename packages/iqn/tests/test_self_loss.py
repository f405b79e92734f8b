"""Losses divided by the scatter of their targets."""

import pytest
import torch

from tesserl_iqn import IQNLoss
from tesserl_iqn.functional import self_loss_factor
from tesserl_iqn.quantile_loss import quantile_huber_loss

ZERO = torch.zeros((), dtype=torch.float64)


def test_the_first_batch_starts_both_means_and_the_factor_is_the_hand_computed_one():
    # roots 1, 3, 8: mean 4, clamped at 4 / 2: 2, 3, 8 with mean 13 / 3
    factor, typical, clamped = self_loss_factor(torch.tensor([1.0, 9.0, 64.0]), ZERO, ZERO, clamp_ratio=2.0)
    assert typical.item() == pytest.approx(4.0)
    assert clamped.item() == pytest.approx(13 / 3)
    torch.testing.assert_close(factor, torch.tensor([13 / 6, 13 / 9, 13 / 24]))


def test_later_batches_move_the_means_by_what_the_decay_leaves():
    means = torch.tensor(2.0), torch.tensor(5.0)
    factor, typical, clamped = self_loss_factor(torch.tensor([16.0, 0.0]), *means, clamp_ratio=4.0, decay=0.9)
    assert typical.item() == pytest.approx(0.9 * 2 + 0.1 * 2)
    assert clamped.item() == pytest.approx(0.9 * 5 + 0.1 * (4 + 0.5) / 2)  # 0 is clamped at 2 / 4
    torch.testing.assert_close(factor, clamped.float() / torch.tensor([4.0, 0.5]))


def test_transitions_alike_keep_their_loss_and_certain_ones_too():
    factor, *_ = self_loss_factor(torch.full((5,), 7.0), ZERO, ZERO)
    torch.testing.assert_close(factor, torch.ones(5))
    factor, *means = self_loss_factor(torch.zeros(5), ZERO, ZERO)
    assert torch.equal(factor, torch.ones(5))
    assert means == [0, 0]


def test_a_self_loss_that_rounding_left_below_zero_counts_as_none():
    factor, *means = self_loss_factor(torch.tensor([-1e-12, 4.0]), ZERO, ZERO)
    assert factor.isfinite().all()
    assert means[0].item() == pytest.approx(1.0)


def test_masked_elements_move_no_mean():
    mask = torch.tensor([True, False, True])
    results = [
        self_loss_factor(torch.tensor([1.0, padding, 9.0]), ZERO, ZERO, mask=mask) for padding in (4.0, torch.inf)
    ]
    for _, typical, clamped in results:
        assert typical.item() == pytest.approx(2.0)
        assert clamped.item() == pytest.approx(2.0)
    torch.testing.assert_close(results[0][0][mask], results[1][0][mask])


def test_the_factor_depends_on_the_order_of_magnitude_of_returns_only_through_their_ratios():
    self_loss = torch.rand(9) + 0.1
    small, large = (self_loss_factor(scale * self_loss, ZERO, ZERO)[0] for scale in (1.0, 1e6))
    torch.testing.assert_close(small, large)


@pytest.mark.parametrize("num_blocks", [None, 2])
def test_the_loss_is_multiplied_by_the_factor_of_its_targets(make_loss, make_batch, monkeypatch, num_blocks):
    from tesserl_iqn import loss as module

    seen = []
    original = quantile_huber_loss

    def remember(*tensors, **options):
        seen.append(tensors)
        return original(*tensors, **options)

    monkeypatch.setattr(module, "quantile_huber_loss", remember)
    options = {"noisy": False, "num_blocks": num_blocks, "reduction": "none", "num_target_taus": 5}
    plain, scaled = make_loss(**options), make_loss(**options, self_loss_clamp_ratio=4.0)
    scaled.load_state_dict(plain.state_dict(), strict=False)
    batch, losses = make_batch(6, num_blocks=num_blocks), []
    for loss in (plain, scaled):
        torch.manual_seed(0)
        losses.append(loss(batch)["loss"].detach())
    ((targets, taus, same),) = seen
    assert targets is same
    blocks = () if num_blocks is None else (num_blocks,)
    assert targets.shape == taus.shape == (6, *blocks, 5)
    self_loss = original(targets, taus, targets)
    factor, typical, clamped = self_loss_factor(self_loss if num_blocks is None else self_loss.mean(dim=-1), ZERO, ZERO)
    torch.testing.assert_close(losses[1], losses[0] * factor)
    torch.testing.assert_close(scaled.self_loss_mean, typical)
    torch.testing.assert_close(scaled.clamped_self_loss_mean, clamped)


def test_evaluation_and_padding_leave_the_means_which_a_checkpoint_carries(make_loss, make_batch):
    loss, batch = make_loss(noisy=False, self_loss_clamp_ratio=4.0), make_batch(6)
    loss(batch)
    first = loss.self_loss_mean.clone()
    assert first > 0
    loss.eval()
    loss(make_batch(6))
    assert torch.equal(loss.self_loss_mean, first)
    twin = make_loss(noisy=False, self_loss_clamp_ratio=4.0)
    twin.load_state_dict(loss.state_dict())
    assert torch.equal(twin.self_loss_mean, first)
    assert torch.equal(twin.clamped_self_loss_mean, loss.clamped_self_loss_mean)
    means, loss = [], loss.train()
    for padding in (0.0, 1e6):
        loss.load_state_dict(twin.state_dict())
        batch["next", "reward"][2] = padding
        batch["collector", "mask"] = torch.arange(6) != 2
        torch.manual_seed(0)
        loss(batch)["loss"].backward()
        means.append(loss.self_loss_mean.clone())
    assert torch.equal(*means)


def test_means_follow_small_changes_for_a_long_time_and_whatever_the_network_is_cast_to(make_loss):
    loss = make_loss(noisy=False, self_loss_clamp_ratio=4.0, self_loss_decay=0.9999).to(torch.bfloat16)
    assert loss.self_loss_mean.dtype == loss.clamped_self_loss_mean.dtype == torch.float64
    means = torch.tensor(100.0, dtype=torch.float64), torch.tensor(100.0, dtype=torch.float64)
    for _ in range(20_000):  # each moves the mean by 5e-7 and less, of which float32 keeps nothing at 100
        _, *means = self_loss_factor(torch.tensor([100.005**2]), *means, decay=loss.self_loss_decay)
    expected = 100.005 - 0.005 * 0.9999**20_000
    assert [float(mean) for mean in means] == pytest.approx([expected, expected], abs=4e-6)  # float32 of 100.005**2


def test_the_means_are_where_the_network_is(make_loss):
    network = make_loss().value_network.to("meta")
    loss = IQNLoss(network, self_loss_clamp_ratio=4.0)
    assert {buffer.device.type for buffer in loss.buffers()} == {"meta"}


def test_without_the_option_there_are_no_means(make_loss):
    assert not any("self_loss" in name for name in make_loss().state_dict())


def test_compiles_without_a_graph_break(make_loss, make_batch):
    loss, batch = make_loss(noisy=False, self_loss_clamp_ratio=4.0), make_batch(6)
    twin = make_loss(noisy=False, self_loss_clamp_ratio=4.0)
    twin.load_state_dict(loss.state_dict())
    compiled = torch.compile(lambda tensordict: loss(tensordict)["loss"], fullgraph=True, backend="aot_eager")
    torch.manual_seed(0)
    value = compiled(batch.clone())
    torch.manual_seed(0)
    torch.testing.assert_close(value, twin(batch)["loss"])
    torch.testing.assert_close(loss.self_loss_mean, twin.self_loss_mean)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"self_loss_clamp_ratio": 0.5}, "self_loss_clamp_ratio must be None or at least 1, got 0.5"),
        ({"self_loss_decay": 1.0}, r"self_loss_decay must be in \[0, 1\), got 1.0"),
    ],
)
def test_options_out_of_range_are_refused(make_loss, options, message):
    with pytest.raises(ValueError, match=message):
        make_loss(**options)
