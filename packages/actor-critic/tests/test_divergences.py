"""Divergences against torch's own distributions, and against what defines them."""

import pytest
import torch
from torch.distributions import Categorical, Independent, Normal, kl_divergence

from tesserl_actor_critic import ActorCritic
from tesserl_actor_critic.distributions import Categorical as Choices
from tesserl_actor_critic.distributions import DiagonalNormal, MultiCategorical, TanhNormal


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(5)


def test_of_single_choices():
    p, q = torch.randn(2, 7, 4)
    expected = kl_divergence(Categorical(logits=p), Categorical(logits=q))
    torch.testing.assert_close(kl_divergence(Choices(p), Choices(q)), expected)
    assert kl_divergence(Choices(p), Choices(p)).abs().max() < 1e-6


def test_of_blocks_and_of_choices_of_different_sizes_are_sums():
    p, q = torch.randn(2, 7, 3, 4)
    expected = kl_divergence(Independent(Categorical(logits=p), 1), Independent(Categorical(logits=q), 1))
    torch.testing.assert_close(kl_divergence(Choices(p, blocks=True), Choices(q, blocks=True)), expected)
    p, q = torch.randn(2, 7, 5)
    parts = [
        kl_divergence(Categorical(logits=a), Categorical(logits=b))
        for a, b in zip(p.split([2, 3], -1), q.split([2, 3], -1), strict=True)
    ]
    torch.testing.assert_close(kl_divergence(MultiCategorical(p, [2, 3]), MultiCategorical(q, [2, 3])), sum(parts))


@pytest.mark.parametrize("squashed", [False, True])
def test_of_gaussians_is_torchs_whether_squashed_or_not(squashed):
    loc, other_loc = torch.randn(2, 7, 3)
    scale, other_scale = torch.rand(2, 7, 3) + 0.3
    expected = kl_divergence(Independent(Normal(loc, scale), 1), Independent(Normal(other_loc, other_scale), 1))
    bounds = (torch.tensor([-2.0, -1.0, 0.0]), torch.tensor([2.0, 3.0, 1.0]))
    kind = (lambda *moments: TanhNormal(*moments, *bounds)) if squashed else DiagonalNormal
    torch.testing.assert_close(kl_divergence(kind(loc, scale), kind(other_loc, other_scale)), expected)


def test_a_network_has_the_divergence_of_its_distributions():
    class Body(torch.nn.Module):
        in_keys, out_features = ["observation"], 3

        def forward(self, observation):
            return observation

    network = ActorCritic(Body(), action_space=4, orthogonal=False)
    p, q = (network.distribution(*network.policy_parameters(torch.randn(5, 3))) for _ in range(2))
    divergence = kl_divergence(p, q)
    assert divergence.shape == (5,)
    assert (divergence > 0).all()
