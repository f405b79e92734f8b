"""Estimates of the divergence, their values and their gradients in expectation, against the exact one."""

import pytest
import torch

from tesserl_grpo import kl_estimate
from tesserl_policy import categorical_kl

LOGITS = torch.tensor([0.3, -1.2, 0.8, 0.1], dtype=torch.float64)
REFERENCE = torch.tensor([-0.5, 0.4, 0.2, -0.1], dtype=torch.float64)


def expectation(logits, kind, weights):
    """Sum of an estimate over the four actions; ``weights`` are the probabilities with which they are drawn."""
    log_probs, reference = logits.log_softmax(dim=-1), REFERENCE.log_softmax(dim=-1)
    return (weights * kl_estimate(log_probs, reference, kind=kind)).sum()


def gradient(function):
    logits = LOGITS.clone().requires_grad_()
    return torch.autograd.grad(function(logits), logits)[0]


def policy():
    return LOGITS.softmax(dim=-1)


def exact(logits):
    return categorical_kl(logits.log_softmax(dim=-1), REFERENCE.log_softmax(dim=-1))


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(kind):
    torch.testing.assert_close(expectation(LOGITS, kind, policy()), exact(LOGITS), rtol=0, atol=1e-14)


def test_k2_is_biased_and_all_agree_near_the_reference():
    assert abs(float(expectation(LOGITS, "k2", policy()) - exact(LOGITS))) > 0.01
    near = REFERENCE + 1e-3 * LOGITS
    for kind in ("k1", "k2", "k3"):
        torch.testing.assert_close(expectation(near, kind, near.softmax(-1)), exact(near), rtol=1e-2, atol=0)


def test_k3_and_k2_are_never_negative_and_k1_is():
    log_probs = torch.randn(1000)
    reference = torch.randn(1000)
    assert (kl_estimate(log_probs, reference, kind="k3") >= 0).all()
    assert (kl_estimate(log_probs, reference, kind="k2") >= 0).all()
    assert (kl_estimate(log_probs, reference, kind="k1") < 0).any()


def test_the_expected_gradient_of_k1_in_a_loss_is_zero():
    torch.testing.assert_close(
        gradient(lambda logits: expectation(logits, "k1", policy())), torch.zeros_like(LOGITS), rtol=0, atol=1e-14
    )
    assert gradient(exact).abs().max() > 0.1


def test_the_expected_gradient_of_k2_is_that_of_the_divergence():
    found = gradient(lambda logits: expectation(logits, "k2", policy()))
    torch.testing.assert_close(found, gradient(exact), rtol=0, atol=1e-14)


def test_the_expected_gradient_of_k3_is_that_of_the_divergence_the_other_way_round():
    found = gradient(lambda logits: expectation(logits, "k3", policy()))
    reverse = gradient(lambda logits: categorical_kl(REFERENCE.log_softmax(dim=-1), logits.log_softmax(dim=-1)))
    torch.testing.assert_close(found, reverse, rtol=0, atol=1e-14)
    assert (found - gradient(exact)).abs().max() > 0.01


def test_an_unknown_estimate_is_refused():
    with pytest.raises(ValueError, match="kind must be one of k1, k2, k3, got 'k4'"):
        kl_estimate(torch.zeros(3), torch.zeros(3), kind="k4")
