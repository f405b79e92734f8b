"""Forbidden actions: probability exactly 0, everything else finite, numbers computed by hand."""

import math

import pytest
import torch
from torch.distributions import Categorical

from tesserl_policy import categorical_kl, mask_actions

LOGITS = torch.tensor([[1.0, 9.0, 1.0 + math.log(3)]])
ALLOWED = torch.tensor([[True, False, True]])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_forbidden_action_has_probability_0_and_the_others_keep_their_ratio(dtype):
    log_policy = mask_actions(LOGITS.to(dtype), ALLOWED).log_softmax(-1)
    probabilities = log_policy.exp()
    assert probabilities[0, 1] == 0
    tolerance = 1e-2 if dtype in (torch.bfloat16, torch.float16) else 1e-6
    assert torch.allclose(probabilities[0, [0, 2]].double(), torch.tensor([0.25, 0.75]).double(), atol=tolerance)
    assert log_policy.isfinite().all()


def test_entropy_divergence_and_gradients_are_finite_and_those_of_the_allowed_actions():
    logits = LOGITS.clone().requires_grad_()
    log_policy = mask_actions(logits, ALLOWED).log_softmax(-1)
    uniform = mask_actions(torch.zeros(1, 3), ALLOWED).log_softmax(-1)
    entropy = -(log_policy.exp() * log_policy).sum()
    divergence = categorical_kl(log_policy, uniform).sum()
    expected = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    assert float(entropy.detach()) == pytest.approx(expected)
    assert float(divergence.detach()) == pytest.approx(math.log(2) - expected)
    (gradient,) = torch.autograd.grad(entropy + 2 * divergence + log_policy[0, 0], logits)
    # of the entropy -p (log p + H), which the divergence has with the other sign, and of log p_0
    of_entropy = torch.tensor([0.25, 0.0, 0.75]) * -(torch.tensor([0.25, 1.0, 0.75]).log() + expected)
    assert torch.allclose(gradient[0], -of_entropy + torch.tensor([0.75, 0.0, -0.75]), atol=1e-6)


def test_the_categorical_of_torch_takes_masked_logits():
    logits = LOGITS.clone().requires_grad_()
    policy = Categorical(logits=mask_actions(logits, ALLOWED))
    assert policy.probs[0, 1] == 0
    assert not (policy.sample((1000,)) == 1).any()
    (gradient,) = torch.autograd.grad(policy.entropy().sum(), logits)
    assert gradient.isfinite().all()


def test_where_nothing_is_allowed_all_are_equal():
    assert torch.equal(mask_actions(LOGITS, ~ALLOWED & ALLOWED).softmax(-1), torch.full((1, 3), 1 / 3))


def test_masks_of_another_dtype_or_shape_are_refused():
    with pytest.raises(TypeError, match=r"action_mask must be bool, got torch\.int8; convert it with \.bool\(\)"):
        mask_actions(LOGITS, ALLOWED.to(torch.int8))
    with pytest.raises(ValueError, match=r"what it masks \(1, 3\), got \(3,\); give one truth value for each action"):
        mask_actions(LOGITS, ALLOWED[0])
