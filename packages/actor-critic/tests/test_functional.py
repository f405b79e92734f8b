"""The formulas, by hand-computed numbers."""

import json
import math
from pathlib import Path

import pytest
import torch

from tesserl_actor_critic import clipped_surrogate_loss, clipped_value_loss
from tesserl_actor_critic.functional import normalized

NUMBERS = json.loads((Path(__file__).parent / "vectors" / "ppo_clip.json").read_text())
CLIPS = {
    "symmetric_0p2": {},
    "asymmetric_0p2_0p28": {"clip_epsilon_high": 0.28},
    "dual_clip_0p2_c1p5": {"dual_clip": 1.5},
}


def tensors(*names, source=NUMBERS):
    return [torch.tensor(source[name], dtype=torch.float64) for name in names]


@pytest.mark.parametrize("case", CLIPS)
def test_surrogate_by_hand(case):
    loss = clipped_surrogate_loss(*tensors("log_prob_new", "log_prob_old", "advantage"), **CLIPS[case])
    torch.testing.assert_close(loss, *tensors("loss_per_sample", source=NUMBERS[case]), rtol=0, atol=1e-6)


def test_dual_clip_bounds_the_ratio_where_the_advantage_is_negative_only():
    log_probs, advantages = torch.tensor([math.log(4.0)] * 2).requires_grad_(), torch.tensor([-1.0, 1.0])
    loss = clipped_surrogate_loss(log_probs, torch.zeros(2), advantages, dual_clip=3.0)
    torch.testing.assert_close(loss, torch.tensor([3.0, -1.2]))
    loss.sum().backward()
    assert log_probs.grad.tolist() == [0.0, 0.0]
    without = clipped_surrogate_loss(log_probs, torch.zeros(2), advantages)
    torch.testing.assert_close(without, torch.tensor([4.0, -1.2]))


def test_gradient_is_that_of_the_textbook_form():
    log_probs = torch.randn(1000, dtype=torch.float64).requires_grad_()
    old, advantages = 0.3 * torch.randn(1000, dtype=torch.float64) + log_probs.detach(), torch.randn(1000).double()
    ratio = (log_probs - old).exp()
    textbook = -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.3) * advantages)
    ours = clipped_surrogate_loss(log_probs, old, advantages, clip_epsilon=0.2, clip_epsilon_high=0.3)
    torch.testing.assert_close(ours, textbook, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        *(torch.autograd.grad(loss.sum(), log_probs)[0] for loss in (ours, textbook)), rtol=0, atol=1e-6
    )


def test_a_ratio_that_overflows_is_clipped_with_a_finite_gradient():
    log_probs = torch.tensor([200.0]).requires_grad_()
    loss = clipped_surrogate_loss(log_probs, torch.zeros(1), torch.ones(1))
    loss.sum().backward()
    torch.testing.assert_close(loss, torch.tensor([-1.2]))
    assert log_probs.grad.tolist() == [0.0]


def test_equal_policies_give_exactly_the_negative_advantage():
    log_probs, advantages = torch.randn(50), torch.randn(50)
    assert torch.equal(clipped_surrogate_loss(log_probs, log_probs, advantages), -advantages)


def test_without_any_room_the_ratio_stays_one():
    loss = clipped_surrogate_loss(torch.tensor([0.5, -0.5]), torch.zeros(2), torch.tensor([1.0, -1.0]), clip_epsilon=0)
    assert loss.tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("kind", ["l2", "smooth_l1"])
def test_value_loss_by_hand(kind):
    numbers = NUMBERS["value_loss"]
    value, old_value, target = tensors("value", "old_value", "ret", source=numbers)
    plain = clipped_value_loss(value, None, target, kind=kind)
    torch.testing.assert_close(plain.mean().item(), numbers[kind]["unclipped_mean"])
    clipped = clipped_value_loss(value, old_value, target, clip=numbers["clip"], kind=kind)
    torch.testing.assert_close(clipped, *tensors("clipped_max_per_sample", source=numbers[kind]))


def test_clipped_value_loss_moves_the_value_and_not_the_old_one():
    value, old_value = torch.tensor([1.0, 0.0]).requires_grad_(), torch.tensor([0.95, -5.0])
    clipped_value_loss(value, old_value, torch.zeros(2), clip=0.2).sum().backward()
    assert value.grad.tolist() == [2.0, 0.0]  # within the clip; beyond it the clipped distance is the larger one


def test_normalised_by_hand():
    (advantages,) = tensors("advantage")
    expected = tensors("cleanrl_ddof1_eps1e_8", source=NUMBERS["advantage_normalised"])
    torch.testing.assert_close(normalized(advantages), *expected)


def test_what_has_no_deviation_is_normalised_without_nan():
    assert normalized(torch.tensor([3.0])).tolist() == [3.0]
    assert normalized(torch.full((4,), 3.0)).tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_epsilon": 1.0}, r"clip_epsilon must be in \[0, 1\), got 1.0; 0.2 is usual"),
        ({"clip_epsilon_high": -0.1}, "clip_epsilon_high must be at least 0, got -0.1"),
        ({"dual_clip": 1.0}, "dual_clip must be above 1, got 1.0; 3 is the paper's"),
        ({"dual_clip": math.nan}, "dual_clip must be above 1, got nan"),
        ({"advantages": torch.zeros(2, 1)}, r"must have one shape, got \(2,\), \(2,\) and \(2, 1\); drop singleton"),
    ],
)
def test_bad_clips_are_refused(options, message):
    inputs = {name: torch.zeros(2) for name in ("log_probs", "old_log_probs", "advantages")}
    with pytest.raises(ValueError, match=message):
        clipped_surrogate_loss(**{**inputs, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": torch.zeros(2, 1)}, r"value and target must have one shape, got \(2,\) and \(2, 1\)"),
        ({"clip": 0.0}, "clip must be above 0, got 0.0; None for no clip"),
        ({"clip": 0.1, "old_value": None}, r"old_value must have the shape of value \(2,\) where it is clipped"),
        ({"kind": "l1"}, "kind of the value loss must be one of l2, smooth_l1, got 'l1'"),
    ],
)
def test_bad_values_are_refused(options, message):
    inputs = {name: torch.zeros(2) for name in ("value", "old_value", "target")}
    with pytest.raises(ValueError, match=message):
        clipped_value_loss(**{**inputs, **options})
