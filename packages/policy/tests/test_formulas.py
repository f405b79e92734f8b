"""Divergences, clipping and reductions against hand-computed numbers and against torch."""

import math

import pytest
import torch
from torch.distributions import Categorical, Normal, kl_divergence

from tesserl_policy import (
    at_least_float32,
    categorical_kl,
    clipped_ratio,
    gaussian_kl,
    log_ratio_bounds,
    masked_mean,
    returns_to_go,
)


def test_divergences_are_torchs():
    logits, reference = torch.randn(2, 5, 7, 3, dtype=torch.float64)
    expected = kl_divergence(Categorical(logits=logits), Categorical(logits=reference))
    torch.testing.assert_close(categorical_kl(logits.log_softmax(-1), reference.log_softmax(-1)), expected)
    loc, other_loc = logits, reference
    scale, other_scale = torch.rand(2, 5, 7, 3, dtype=torch.float64) + 0.1
    expected = kl_divergence(Normal(loc, scale), Normal(other_loc, other_scale)).sum(dim=-1)
    torch.testing.assert_close(gaussian_kl(loc, scale, other_loc, other_scale), expected)
    assert torch.equal(gaussian_kl(loc, scale, loc, scale), torch.zeros(5, 7, dtype=torch.float64))


def test_actions_that_neither_policy_can_take_add_nothing():
    logits = torch.tensor([[0.4, -torch.inf, 1.0]], requires_grad=True)
    reference = torch.tensor([[1.3, -torch.inf, -0.2]])
    divergence = categorical_kl(logits.log_softmax(-1), reference.log_softmax(-1))
    expected = [torch.tensor([values]).log_softmax(-1) for values in ([0.4, 1.0], [1.3, -0.2])]
    torch.testing.assert_close(divergence, categorical_kl(*expected))
    divergence.sum().backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ratio_is_bounded_where_the_objective_bounds_it(dtype):
    ratio = torch.tensor([0.5, 1.0, 2.0, 0.5, 1.0, 2.0, 9.0], dtype=dtype)
    advantages = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0], dtype=dtype)
    low, high = log_ratio_bounds(0.2, 0.3)
    found = clipped_ratio(ratio.log(), advantages, low, high, dual_clip=3.0)
    expected = torch.tensor([0.5, 1.0, 1.3, 0.8, 1.0, 2.0, 3.0], dtype=dtype)
    torch.testing.assert_close(found, expected)
    unbounded = clipped_ratio(ratio.log(), advantages, low, high)
    torch.testing.assert_close(unbounded[-1], ratio[-1])
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.3) * advantages)
    torch.testing.assert_close(unbounded * advantages, surrogate)


def test_a_ratio_that_is_cut_off_neither_overflows_nor_has_a_gradient():
    log_ratio = torch.tensor([1000.0, 0.0], requires_grad=True)
    ratio = clipped_ratio(log_ratio, torch.ones(2), *log_ratio_bounds(0.2))
    ratio.sum().backward()
    torch.testing.assert_close(ratio.detach(), torch.tensor([1.2, 1.0]))
    assert log_ratio.grad.tolist() == [0.0, 1.0]


def test_bounds_are_logarithms():
    assert log_ratio_bounds(0.2) == (math.log1p(-0.2), math.log1p(0.2))
    assert log_ratio_bounds(0.2, 0.28) == (math.log1p(-0.2), math.log1p(0.28))
    assert log_ratio_bounds(1.0) == (-math.inf, math.log1p(1.0))


def test_means_leave_out_even_nan():
    values = torch.tensor([1.0, math.nan, 5.0]).requires_grad_()
    mean = masked_mean(values, torch.tensor([True, False, True]))
    mean.backward()
    assert mean.item() == 3.0
    assert values.grad.tolist() == [0.5, 0.0, 0.5]
    assert masked_mean(torch.tensor([1.0, 2.0])).item() == 1.5
    assert masked_mean(torch.tensor([True, False, False, True])).item() == 0.5


@pytest.mark.parametrize("mask", [None, torch.zeros(0, dtype=torch.bool)])
def test_the_mean_of_nothing_is_zero(mask):
    values = torch.zeros(0, requires_grad=True)
    mean = masked_mean(values, mask)
    mean.backward()
    assert mean.item() == 0.0
    assert masked_mean(torch.ones(3), torch.zeros(3, dtype=torch.bool)).item() == 0.0


def test_returns_to_go_by_hand():
    rewards = torch.tensor([[1.0, 2.0, 4.0, math.nan, math.nan], [1.0, 1.0, 1.0, 1.0, 1.0]])
    mask = torch.tensor([[True, True, True, False, False], [True] * 5])
    expected = torch.tensor([[3.0, 4.0, 4.0, 0.0, 0.0], [1.9375, 1.875, 1.75, 1.5, 1.0]])
    torch.testing.assert_close(returns_to_go(rewards, mask, discount=0.5), expected)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_only_half_precision_is_converted(given, found):
    assert at_least_float32(torch.zeros(2, dtype=given)).dtype == found
