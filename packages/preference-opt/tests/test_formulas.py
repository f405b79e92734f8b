"""Sums, contrastive preference learning, KTO and behaviour cloning against reference numbers and hand computation."""

import json
import math
from pathlib import Path

import pytest
import torch

from tesserl_preference_opt import bc_loss, cpl_advantage, cpl_loss, cpl_ranked_loss, kto_loss, sum_log_probs
from tesserl_preference_opt.functional import deterministic_log_probs, value_loss

VECTORS = Path(__file__).parent / "vectors"
CPL, DPO = (json.loads((VECTORS / f"{name}.json").read_text()) for name in ("cpl", "dpo"))


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def padded(rows):
    """Rows of unequal length, padded by NaN, and their mask."""
    longest = max(map(len, rows))
    mask = torch.tensor([[step < len(row) for step in range(longest)] for row in rows])
    return f64([row + [math.nan] * (longest - len(row)) for row in rows]), mask


def test_discounted_sums_weigh_steps_by_their_place():
    log_probs, mask = padded([[-1.0, -2.0, -4.0], [-3.0]])
    total, weight = sum_log_probs(log_probs, mask, discount=0.5)
    assert total.tolist() == [-3.0, -3.0]
    assert weight.tolist() == [1.75, 1.0]
    total, weight = sum_log_probs(log_probs, mask, discount=0.0)
    assert total.tolist() == [-1.0, -3.0]
    assert weight.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_sums_without_a_mask_are_those_with_a_full_one(discount):
    log_probs = -torch.rand(5, 7)
    full = sum_log_probs(log_probs, torch.ones(5, 7, dtype=torch.bool), discount=discount)
    for mine, other in zip(sum_log_probs(log_probs, discount=discount), full, strict=True):
        torch.testing.assert_close(mine, other)


def test_sums_name_a_wrong_mask_and_a_wrong_discount():
    with pytest.raises(
        ValueError, match=r"mask must have the shape of log_probs \(5, 7\), got \(5,\); one entry per step"
    ):
        sum_log_probs(torch.zeros(5, 7), torch.ones(5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"discount must be in \[0, 1\], got 1.5"):
        sum_log_probs(torch.zeros(5, 7), discount=1.5)


SIDES, LABEL = (f64(CPL["log_prob_1"]), f64(CPL["log_prob_2"])), f64(CPL["label"])


def options(case):
    return {"alpha": case["alpha"], "discount": case["gamma"]}


@pytest.mark.parametrize("case", CPL["cases"], ids=lambda case: f"bias{case['bias_lambda']}")
def test_cpl_matches_the_reference(case):
    for side, name in zip(SIDES, ("adv1", "adv2"), strict=True):
        torch.testing.assert_close(cpl_advantage(side, **options(case)), f64(case[name]), rtol=0, atol=1e-12)
    loss = cpl_loss(*SIDES, LABEL, bias=case["bias_lambda"], **options(case))
    torch.testing.assert_close(loss, f64(case["loss_per_pair"]), rtol=0, atol=1e-12)
    assert loss.mean().item() == pytest.approx(case["loss"], abs=1e-12)


@pytest.mark.parametrize("case", CPL["cases"], ids=lambda case: f"bias{case['bias_lambda']}")
def test_gradients_of_cpl_are_those_worked_out_by_hand(case):
    sides = [side.clone().requires_grad_() for side in SIDES]
    cpl_loss(*sides, LABEL, bias=case["bias_lambda"], **options(case)).sum().backward()
    bias, advantages = case["bias_lambda"], (f64(case["adv1"]), f64(case["adv2"]))
    # of softplus(bias A_other - A_preferred): -s by A_preferred and bias s by A_other, s the sigmoid of that
    second = torch.sigmoid(bias * advantages[0] - advantages[1])
    first = torch.sigmoid(bias * advantages[1] - advantages[0])
    by_advantage = [LABEL * bias * second - (1 - LABEL) * first, (1 - LABEL) * bias * first - LABEL * second]
    weight = case["alpha"] * case["gamma"] ** torch.arange(3.0, dtype=torch.float64)
    for side, expected in zip(sides, by_advantage, strict=True):
        torch.testing.assert_close(side.grad, expected.unsqueeze(1) * weight, rtol=0, atol=1e-12)


def test_an_unbiased_cpl_does_not_change_when_all_log_probs_fall_and_a_biased_one_does():
    low = [side - 2.0 for side in SIDES]
    torch.testing.assert_close(cpl_loss(*low, LABEL, bias=1.0), cpl_loss(*SIDES, LABEL, bias=1.0))
    assert (cpl_loss(*low, LABEL, bias=0.5) > cpl_loss(*SIDES, LABEL, bias=0.5)).all()


def test_swapping_segments_and_labels_changes_nothing_in_cpl():
    torch.testing.assert_close(cpl_loss(*SIDES[::-1], 1 - LABEL), cpl_loss(*SIDES, LABEL))


def test_unbiased_cpl_is_dpo_without_a_reference():
    expected = torch.nn.functional.softplus(0.3 * (SIDES[0].sum(1) - SIDES[1].sum(1)))
    torch.testing.assert_close(cpl_loss(*SIDES, torch.ones(4), alpha=0.3, bias=1.0), expected)


def test_masked_steps_change_nothing_in_cpl():
    mask = torch.tensor([[True, True, False], [True, False, False], [True, True, True], [True, True, False]])
    log_probs = torch.where(mask, SIDES[0], torch.nan).requires_grad_()
    loss = cpl_loss(log_probs, SIDES[1], LABEL, discount=0.9, mask_1=mask)
    other = cpl_loss(torch.where(mask, SIDES[0], 50.0), SIDES[1], LABEL, discount=0.9, mask_1=mask)
    torch.testing.assert_close(loss, other)
    loss.sum().backward()
    assert (log_probs.grad[~mask] == 0).all()
    assert (log_probs.grad[mask] != 0).all()


def test_length_normalised_advantages_are_means():
    log_probs, mask = padded([[-1.0, -2.0, -6.0], [-4.0]])
    advantage = cpl_advantage(log_probs, mask, alpha=0.1, length_normalize=True)
    torch.testing.assert_close(advantage, f64([-0.3, -0.4]))
    weighted = cpl_advantage(log_probs, mask, alpha=0.1, discount=0.5, length_normalize=True)
    torch.testing.assert_close(weighted, f64([-0.1 * 3.5 / 1.75, -0.4]))


def test_the_ranked_loss_matches_the_reference():
    case = CPL["ranked"]
    loss = cpl_ranked_loss(f64(case["adv"]), f64(case["score"]), bias=case["bias_lambda"])
    assert loss.item() == pytest.approx(case["loss"], abs=1e-12)


def test_the_ranked_loss_is_the_mean_over_its_pairs_within_groups_and_without_ties():
    advantage, score, group = f64([0.3, -0.1, 0.2, 0.5]), f64([2.0, 1.0, 5.0, 5.0]), torch.tensor([0, 0, 1, 1])
    pair = cpl_loss(f64([[3.0]]), f64([[-1.0]]), f64([0.0]), alpha=0.1)  # 0.3 against -0.1: the only comparison
    assert cpl_ranked_loss(advantage, score, group).item() == pytest.approx(pair.item())
    assert cpl_ranked_loss(advantage, torch.ones(4)).item() == 0.0


def test_deterministic_log_probs_match_the_reference():
    case = CPL["deterministic_actor_logprob"]
    log_probs = deterministic_log_probs(f64(case["mean"]), f64(case["action"]))
    torch.testing.assert_close(log_probs, f64(case["value"]), rtol=0, atol=1e-12)


def test_bc_loss_matches_the_reference():
    assert bc_loss(torch.cat(SIDES)).item() == pytest.approx(CPL["bc_loss"]["all"], abs=1e-12)


def test_bc_loss_is_a_mean_over_valid_steps():
    log_probs, mask = padded([[-1.0, -2.0, -3.0], [-6.0]])
    assert bc_loss(log_probs, mask).item() == 3.0
    assert bc_loss(log_probs, torch.zeros_like(mask)).item() == 0.0


def test_value_loss_is_half_the_squared_error():
    assert value_loss(f64([1.0, 3.0]), f64([4.0, 3.0])).tolist() == [4.5, 0.0]
    with pytest.raises(ValueError, match=r"value must have the shape of its target \(2, 1\), got \(2,\)"):
        value_loss(torch.zeros(2), torch.zeros(2, 1))


@pytest.mark.parametrize("case", DPO["cases"], ids=lambda case: f"beta{case['beta']}")
@pytest.mark.parametrize(("name", "side", "good"), [("desirable", "w", 1.0), ("undesirable", "l", 0.0)])
def test_kto_matches_the_reference(case, name, side, good):
    policy, reference = (f64(DPO["sums"][f"{who}_{side}"]) for who in ("pi", "ref"))
    loss = kto_loss(policy, reference, torch.full((4,), good), 0.15, beta=case["beta"])
    expected = case["losses"][f"kto_{name}_kl0.15"]["per_pair"]
    torch.testing.assert_close(loss, f64(expected), rtol=0, atol=1e-12)


def test_kto_raises_the_good_and_lowers_the_bad_by_their_weights():
    policy = torch.full((4,), -2.0, dtype=torch.float64, requires_grad=True)
    desirable = torch.tensor([True, False, True, False])
    weights = {"desirable_weight": 3.0, "undesirable_weight": 0.5}
    kto_loss(policy, policy.detach(), desirable, 0.0, beta=0.4, **weights).sum().backward()
    # at no gain the slope of the sigmoid is 1/4
    torch.testing.assert_close(policy.grad, 0.4 * 0.25 * f64([-3.0, 0.5, -3.0, 0.5]))


def test_kto_of_an_undecided_segment_is_between_good_and_bad():
    arguments = (f64([-1.0]), f64([-2.0]))
    good, bad, half = (kto_loss(*arguments, f64([p]), 0.1).item() for p in (1.0, 0.0, 0.5))
    assert half == pytest.approx((good + bad) / 2)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: cpl_loss(*SIDES, LABEL, bias=0.0), r"bias must be in \(0, 1\], got 0.0; 1 is unbiased"),
        (lambda: cpl_loss(*SIDES, LABEL, alpha=0.0), "alpha must be above 0, got 0.0"),
        (
            lambda: cpl_loss(*SIDES, LABEL[:3]),
            r"segments and labels must be equally many, got \(4,\), \(4,\) and \(3,\)",
        ),
        (lambda: cpl_ranked_loss(torch.zeros(4), torch.zeros(3)), r"must be of one shape \[K\], got \(4,\), \(3,\)"),
        (
            lambda: kto_loss(torch.zeros(4), torch.zeros(4), torch.ones(3), 0.0),
            r"one shape \[P\], got \(4,\), \(4,\), \(3,\)",
        ),
        (lambda: kto_loss(torch.zeros(4), torch.zeros(4), torch.ones(4), 0.0, beta=-1), "beta must be above 0, got -1"),
    ],
)
def test_wrong_arguments_are_named(function, message):
    with pytest.raises(ValueError, match=message):
        function()
