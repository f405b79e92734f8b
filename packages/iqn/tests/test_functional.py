"""The formulas against reference numbers, closed forms and hand computation."""

import json
import math
from pathlib import Path
from statistics import NormalDist

import pytest
import torch

from tesserl_iqn import cosine_features, distort_taus, munchausen_target, quantile_huber_loss, quantile_td_target
from tesserl_iqn.fractions import sample_taus
from tesserl_iqn.functional import scaled_log_policy, take_action
from tesserl_iqn.quantile_loss import absolute_td_error

VECTORS = Path(__file__).parent / "vectors"


def vectors(name):
    return json.loads((VECTORS / f"{name}.json").read_text())


def cases(name):
    return [pytest.param(case, id=case["name"]) for case in vectors(name)["cases"]]


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("case", cases("quantile_huber"))
def test_quantile_huber_loss_and_td_error_match_the_reference(case):
    quantiles, taus, targets = f64(case["theta"]), f64(case["tau"]), f64(case["target"])
    loss = quantile_huber_loss(quantiles, taus, targets, kappa=case["kappa"])
    torch.testing.assert_close(loss, f64(case["loss_per_sample"]), rtol=0, atol=1e-12)
    torch.testing.assert_close(
        absolute_td_error(quantiles, targets).mean(), f64(case["abs_td_mean"]).mean(), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(
    ("quantile", "tau", "target", "expected"),
    [(0.0, 0.25, 0.5, 0.03125), (0.0, 0.25, -0.5, 0.09375), (0.0, 0.9, 3.0, 2.25), (1.0, 0.3, 1.0, 0.0)],
)
def test_quantile_huber_loss_of_one_pair_is_the_hand_computed_number(quantile, tau, target, expected):
    loss = quantile_huber_loss(torch.tensor([[quantile]]), torch.tensor([[tau]]), torch.tensor([[target]]))
    assert loss.item() == pytest.approx(expected, abs=1e-7)


def test_quantile_huber_loss_with_kappa_zero_is_the_pinball_loss_with_slopes_tau_and_one_minus_tau():
    quantiles = f64([[0.0, 0.0]]).requires_grad_()
    loss = quantile_huber_loss(quantiles, f64([[0.2, 0.9]]), f64([[2.0, -1.0, -1.0]]), kappa=0.0)
    # tau .2: (.2 * 2 + .8 * 1 + .8 * 1) / 3; tau .9: (.9 * 2 + .1 + .1) / 3
    assert loss.item() == pytest.approx((2.0 + 2.0) / 3)
    loss.backward()
    expected = f64([[(-0.2 + 0.8 + 0.8) / 3, (-0.9 + 0.1 + 0.1) / 3]])
    torch.testing.assert_close(quantiles.grad, expected)


def test_quantile_huber_loss_is_least_at_the_empirical_quantile():
    targets = torch.arange(100.0).unsqueeze(0)
    grid = torch.linspace(0, 99, 991).unsqueeze(-1)
    for tau in (0.1, 0.5, 0.8):
        loss = quantile_huber_loss(grid, torch.full_like(grid, tau), targets.expand(991, -1), kappa=0.0)
        assert grid[loss.argmin()].item() == pytest.approx(100 * tau - 0.5, abs=0.6)


def test_quantile_huber_loss_sums_over_predictions_and_averages_over_targets():
    quantiles, taus, targets = torch.randn(3, 5), torch.rand(3, 5), torch.randn(3, 7)
    loss = quantile_huber_loss(quantiles, taus, targets)
    torch.testing.assert_close(quantile_huber_loss(quantiles, taus, targets.repeat(1, 4)), loss)
    torch.testing.assert_close(quantile_huber_loss(quantiles.repeat(1, 4), taus.repeat(1, 4), targets), 4 * loss)


def test_leading_dimensions_of_the_losses_are_only_batch():
    quantiles, taus, targets = torch.randn(2, 3, 5), torch.rand(2, 3, 5), torch.randn(2, 3, 7)
    flat = quantile_huber_loss(quantiles.flatten(0, 1), taus.flatten(0, 1), targets.flatten(0, 1))
    torch.testing.assert_close(quantile_huber_loss(quantiles, taus, targets).flatten(), flat)


@pytest.mark.parametrize(
    ("taus", "targets", "kappa", "message"),
    [
        ((32, 16), (32, 8), 1.0, r"taus must have the shape of quantiles \(32, 8\), got \(32, 16\); draw one tau per"),
        ((32, 8), (8, 8), 1.0, r"targets must have the batch shape of quantiles \(32,\) .* got \(8, 8\)"),
        ((32, 8), (32, 8), -1.0, r"kappa must be at least 0, got -1.0"),
    ],
)
def test_quantile_huber_loss_says_what_is_wrong(taus, targets, kappa, message):
    with pytest.raises(ValueError, match=message):
        quantile_huber_loss(torch.zeros(32, 8), torch.zeros(taus), torch.zeros(targets), kappa=kappa)


@pytest.mark.parametrize("start", [0, 1])
def test_cosine_features_match_the_reference(start):
    data = vectors("iqn_cosine_embedding")
    features = cosine_features(f64(data["tau"]), data["n"], start=start)
    torch.testing.assert_close(features, f64(data[f"start{start}"]["features"]), rtol=0, atol=1e-12)
    wide = cosine_features(torch.tensor([0.3]), 64, start=start)
    expected = torch.tensor(data[f"features_n64_tau_0.3_start{start}"])
    torch.testing.assert_close(wide[0], expected, rtol=0, atol=2e-5)  # 63 * pi * tau in float32


@pytest.mark.parametrize("case", cases("munchausen_target"))
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_munchausen_target_matches_the_reference(case, dtype, tolerance):
    next_quantiles = torch.tensor([case["z_next"]], dtype=dtype)
    discount = 0.0 if case["done"] else case["gamma"] ** case["n_step"]
    target = munchausen_target(
        torch.tensor([case["reward"]], dtype=dtype),
        torch.tensor([discount], dtype=dtype),
        torch.tensor([case["action"]]),
        torch.tensor([case["q_cur"]], dtype=dtype),
        next_quantiles.mean(dim=1),
        next_quantiles,
        alpha=case["alpha"],
        temperature=case["tau"],
        clip=case["l0"],
    )
    expected = torch.tensor([case["target"]], dtype=dtype)
    torch.testing.assert_close(target, expected, rtol=tolerance if dtype == torch.float32 else 0, atol=tolerance)


def test_munchausen_target_of_a_terminal_step_is_reward_plus_the_clipped_bonus():
    target = munchausen_target(
        torch.tensor([2.0]),
        torch.tensor([0.0]),
        torch.tensor([1]),
        torch.tensor([[5.0, 0.0]]),  # log pi of action 1 is -5: below the clip at -1
        torch.tensor([[100.0, 300.0]]),
        torch.tensor([[[100.0, 300.0]]]),
        alpha=0.9,
    )
    torch.testing.assert_close(target, torch.tensor([[2.0 - 0.9]]))


def test_munchausen_target_without_bonus_and_temperature_is_the_greedy_target():
    reward, discount = torch.randn(6), torch.rand(6)
    next_quantiles = torch.randn(6, 4, 3)
    next_value = next_quantiles.mean(dim=1)
    soft = munchausen_target(
        reward,
        discount,
        torch.zeros(6, dtype=torch.int64),
        torch.randn(6, 3),
        next_value,
        next_quantiles,
        alpha=0.0,
        temperature=1e-6,
    )
    torch.testing.assert_close(soft, quantile_td_target(reward, discount, next_quantiles, next_value.argmax(dim=-1)))


def test_scaled_log_policy_is_a_log_probability_where_the_naive_form_overflows():
    value = torch.tensor([[1000.0, 999.99, -1000.0]])
    scaled = scaled_log_policy(value, 0.03)
    assert scaled.isfinite().all()
    assert torch.exp(scaled / 0.03).sum().item() == pytest.approx(1.0, abs=1e-6)
    assert not torch.exp(value / 0.03).isfinite().all()


def test_quantile_td_target_discounts_the_quantiles_of_the_next_action():
    next_quantiles = torch.tensor([[[1.0, 10.0], [2.0, 20.0]], [[3.0, 30.0], [4.0, 40.0]]])
    target = quantile_td_target(
        torch.tensor([0.5, -1.0]), torch.tensor([0.9, 0.0]), next_quantiles, torch.tensor([1, 0])
    )
    torch.testing.assert_close(target, torch.tensor([[9.5, 18.5], [-1.0, -1.0]]))


def test_targets_refuse_a_reward_that_would_broadcast_over_the_batch():
    message = r"reward must have the batch shape of next_quantiles \(4,\), got \(4, 1\)"
    action, value, quantiles = torch.zeros(4, dtype=torch.int64), torch.zeros(4, 3), torch.zeros(4, 5, 3)
    with pytest.raises(ValueError, match=message):
        quantile_td_target(torch.zeros(4, 1), torch.zeros(4), quantiles, action)
    with pytest.raises(ValueError, match=message):
        munchausen_target(torch.zeros(4, 1), torch.zeros(4), action, value, value, quantiles)


def test_take_action_picks_the_quantiles_of_each_action():
    quantiles = torch.arange(24.0).reshape(2, 3, 4)
    torch.testing.assert_close(
        take_action(quantiles, torch.tensor([1, 3])), torch.stack([quantiles[0, :, 1], quantiles[1, :, 3]])
    )


NORMAL = NormalDist()


@pytest.mark.parametrize("tau", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize(
    ("kind", "eta", "closed_form"),
    [
        ("cvar", 0.25, lambda tau: 0.25 * tau),
        ("wang", 0.75, lambda tau: NORMAL.cdf(NORMAL.inv_cdf(tau) + 0.75)),
        ("wang", -0.75, lambda tau: NORMAL.cdf(NORMAL.inv_cdf(tau) - 0.75)),
        ("pow", 2.0, lambda tau: tau ** (1 / 3)),
        ("pow", -2.0, lambda tau: 1 - (1 - tau) ** (1 / 3)),
        ("cpw", 0.71, lambda tau: tau**0.71 / (tau**0.71 + (1 - tau) ** 0.71) ** (1 / 0.71)),
    ],
)
def test_distortions_match_their_closed_forms(kind, eta, closed_form, tau):
    assert distort_taus(f64([tau]), kind, eta).item() == pytest.approx(closed_form(tau), abs=1e-12)


@pytest.mark.parametrize(("kind", "eta"), [("cvar", 1.0), ("wang", 0.0), ("pow", 0.0), ("cpw", 1.0)])
def test_neutral_distortions_change_nothing(kind, eta):
    taus = torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(distort_taus(taus, kind, eta), taus, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("kind", "eta"), [("cvar", 0.3), ("wang", -0.75), ("wang", 0.75), ("pow", -2), ("cpw", 0.71)])
def test_distortions_stay_in_the_unit_interval_and_keep_the_order(kind, eta):
    distorted = distort_taus(torch.linspace(0, 1, 1001), kind, eta)
    assert distorted[0] == 0
    assert (distorted >= 0).all()
    assert (distorted <= 1).all()
    assert (distorted.diff() >= 0).all()


def test_distorted_means_of_a_standard_normal_are_the_known_ones():
    # the quantile function of N(0, 1) at distorted midpoints: Wang shifts the mean by eta, CVaR is -density / eta
    taus = sample_taus((), 200_000, kind="midpoints", dtype=torch.float64)

    def mean(kind, eta):
        return torch.special.ndtri(distort_taus(taus, kind, eta)).mean().item()

    assert mean("wang", -0.75) == pytest.approx(-0.75, abs=1e-3)
    assert mean("cvar", 0.1) == pytest.approx(-NORMAL.pdf(NORMAL.inv_cdf(0.1)) / 0.1, abs=1e-3)


@pytest.mark.parametrize(
    ("kind", "eta", "message"),
    [
        ("cvar", 0.0, r"eta of cvar must be in \(0, 1\], got 0.0"),
        ("cvar", 1.1, r"eta of cvar must be in \(0, 1\], got 1.1"),
        ("cpw", 0.0, r"eta of cpw must be positive, got 0.0"),
        ("wang", math.nan, r"eta of the risk distortion wang must be finite, got nan"),
        ("norm", 3.0, r"risk distortion must be one of cvar, wang, pow, cpw, got 'norm'"),
    ],
)
def test_distortions_say_what_is_wrong(kind, eta, message):
    with pytest.raises(ValueError, match=message):
        distort_taus(torch.rand(3), kind, eta)


@pytest.mark.parametrize("num", [1, 2, 5])
def test_midpoints_are_those_of_qr_dqn(num):
    expected = torch.tensor(vectors("qr_fqf_noisy")["qr_tau_hat"][str(num)])
    torch.testing.assert_close(sample_taus((3,), num, kind="midpoints"), expected.expand(3, num))


def test_stratified_taus_fall_one_into_each_segment():
    taus = sample_taus((50, 3), 8, kind="stratified")
    assert taus.shape == (50, 3, 8)
    torch.testing.assert_close((taus * 8).floor(), torch.arange(8.0).expand(50, 3, 8))


def test_antithetic_taus_mirror_one_draw_of_each_segment_of_the_lower_half():
    taus = sample_taus((50,), 8, kind="antithetic")
    lower, upper = taus.chunk(2, dim=-1)
    torch.testing.assert_close(lower + upper, torch.ones(50, 4))
    torch.testing.assert_close((lower * 8).floor(), torch.arange(4.0).expand(50, 4))


@pytest.mark.parametrize("kind", ["uniform", "stratified", "antithetic"])
def test_drawn_taus_are_uniform_and_reproducible(kind):
    taus = sample_taus((25_000,), 8, kind=kind, generator=torch.Generator().manual_seed(3))
    ordered = taus.flatten().sort().values
    distance = (ordered - torch.linspace(0, 1, ordered.numel())).abs().max().item()
    assert distance < 1.95 / math.sqrt(ordered.numel())  # Kolmogorov-Smirnov, one in a thousand
    assert torch.equal(taus, sample_taus((25_000,), 8, kind=kind, generator=torch.Generator().manual_seed(3)))


def test_stratified_and_antithetic_means_vary_less_than_uniform_ones():
    generator = torch.Generator().manual_seed(4)
    spread = {
        kind: sample_taus((4000,), 8, kind=kind, generator=generator).square().mean(dim=-1).std().item()
        for kind in ("uniform", "stratified", "antithetic")
    }
    assert spread["stratified"] < 0.2 * spread["uniform"]
    assert spread["antithetic"] < 0.4 * spread["uniform"]


@pytest.mark.parametrize(
    ("kind", "num", "message"),
    [
        ("antithetic", 7, "antithetic taus come in pairs: their number must be even, got 7; use stratified"),
        ("uniform", 0, "number of taus must be at least 1, got 0"),
        ("sobol", 8, "tau sampling must be one of uniform, stratified, antithetic, midpoints, got 'sobol'"),
    ],
)
def test_tau_sampling_says_what_is_wrong(kind, num, message):
    with pytest.raises(ValueError, match=message):
        sample_taus((2,), num, kind=kind)
