"""The lean distributions against those of torch, and by integration."""

import math

import pytest
import torch
from torch import distributions as torchs

from tesserl_actor_critic.distributions import Categorical, DiagonalNormal, MultiCategorical, TanhNormal

LOW, HIGH = torch.tensor([-1.0, -2.0, 0.0]), torch.tensor([1.0, 2.0, 5.0])


class Side:
    """Independent choices side by side, by torch's own distributions."""

    def __init__(self, logits, nvec):
        self.parts = [torchs.Categorical(logits=part) for part in logits.split(nvec, -1)]

    def log_prob(self, value):
        return sum(part.log_prob(value[..., i]) for i, part in enumerate(self.parts))

    def entropy(self):
        return sum(part.entropy() for part in self.parts)


def pairs():
    """Ours and torch's, for a batch of shape ``[6, 7]``."""
    logits, blocks, several = torch.randn(6, 7, 4), torch.randn(6, 7, 2, 3), torch.randn(6, 7, 9)
    loc, scale = torch.randn(6, 7, 3), torch.rand(6, 7, 3) + 0.2
    squash = [torchs.TanhTransform(), torchs.AffineTransform((HIGH + LOW) / 2, (HIGH - LOW) / 2)]
    squashed = torchs.TransformedDistribution(torchs.Normal(loc, scale), squash)
    return {
        "categorical": (Categorical(logits), torchs.Categorical(logits=logits)),
        "blocks": (Categorical(blocks, blocks=True), torchs.Independent(torchs.Categorical(logits=blocks), 1)),
        "multi": (MultiCategorical(several, (2, 3, 4)), Side(several, [2, 3, 4])),
        "normal": (DiagonalNormal(loc, scale), torchs.Independent(torchs.Normal(loc, scale), 1)),
        "tanh": (TanhNormal(loc, scale, LOW, HIGH), torchs.Independent(squashed, 1)),
    }


KINDS = list(pairs())
DISCRETE = KINDS[:3]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sample_shape", [(), (2,)])
def test_log_probs_of_draws_are_torchs(kind, sample_shape):
    ours, theirs = pairs()[kind]
    action = ours.sample(sample_shape)
    event = {"categorical": (), "blocks": (2,)}.get(kind, (3,))
    assert action.shape == (*sample_shape, 6, 7, *event)
    assert (ours.batch_shape, ours.event_shape) == ((6, 7), event)
    assert action.dtype == (torch.int64 if kind in DISCRETE else torch.float32)
    log_probs = ours.log_prob(action)
    assert log_probs.shape == (*sample_shape, 6, 7)
    torch.testing.assert_close(log_probs, theirs.log_prob(action), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS[:4])
def test_entropies_are_torchs(kind):
    ours, theirs = pairs()[kind]
    torch.testing.assert_close(ours.entropy(), theirs.entropy())


@pytest.mark.parametrize("kind", KINDS[:4])
def test_the_mean_density_is_that_of_draws(kind):
    ours, _ = pairs()[kind]
    found = ours.log_mean_density()
    assert found.shape == (6, 7)
    draws = ours.log_prob(ours.sample((20_000,))).exp().mean(0)
    torch.testing.assert_close(found.exp() / draws, torch.ones(6, 7), rtol=0, atol=0.1)


@pytest.mark.parametrize("kind", DISCRETE)
def test_draws_have_the_frequencies_of_their_probabilities(kind):
    ours, _ = pairs()[kind]
    draws = ours.sample((20_000,))[:, 0, 0].reshape(20_000, -1)
    values, counts = draws.unique(dim=0, return_counts=True)
    probs = torch.stack([ours.log_prob(value.squeeze(-1).expand_as(ours.mode)) for value in values])[:, 0, 0].exp()
    torch.testing.assert_close(counts / 20_000, probs, rtol=0, atol=0.015)


def test_the_mode_is_the_most_probable_action():
    for kind in DISCRETE:
        ours, _ = pairs()[kind]
        others = ours.log_prob(ours.sample((100,)))
        assert (ours.log_prob(ours.mode) >= others).all()
        assert torch.equal(ours.mode, ours.deterministic_sample)
    normal, _ = pairs()["normal"]
    assert torch.equal(normal.mode, normal.loc)
    assert torch.equal(normal.mean, normal.loc)


def test_an_action_forbidden_by_a_low_logit_leaves_entropy_and_gradient_finite():
    logits = torch.tensor([[0.0, 1.0, -1e9], [0.0, -1e9, -1e9]]).requires_grad_()
    policy = Categorical(logits)
    torch.testing.assert_close(policy.entropy(), torchs.Categorical(logits=logits).entropy())
    assert policy.entropy()[1] == 0
    policy.entropy().sum().backward()
    assert logits.grad.isfinite().all()
    assert (policy.sample((200,)) != 2).all()


def test_moments_of_the_normal():
    policy = DiagonalNormal(torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 3.0]]))
    draws = policy.sample((50_000,))
    torch.testing.assert_close(draws.mean(0), policy.mean, rtol=0, atol=0.05)
    torch.testing.assert_close(draws.std(0), policy.stddev, rtol=0.02, atol=0)
    assert policy.variance.tolist() == [[0.25, 9.0]]


def test_squashed_draws_and_modes_stay_in_the_bounds():
    policy = TanhNormal(5 * torch.randn(1000, 3), torch.ones(1000, 3), LOW, HIGH)
    for action in (policy.sample((10,)), policy.mode):
        assert (action >= LOW).all()
        assert (action <= HIGH).all()
    torch.testing.assert_close(policy.mode, (HIGH + LOW) / 2 + (HIGH - LOW) / 2 * policy.base.loc.tanh())


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 0.3), (1.0, 1.0), (-2.0, 0.5)])
def test_the_squashed_density_integrates_to_one_and_gives_its_entropy(loc, scale):
    raw = torch.linspace(-9, 9, 200_001, dtype=torch.float64)
    action = (3 * raw.tanh() + 1).unsqueeze(-1)
    policy = TanhNormal(*torch.tensor([[loc], [scale]]).double(), torch.tensor([-2.0]), torch.tensor([4.0]))
    log_probs = policy.log_prob(action)
    volume = torch.trapezoid(log_probs.exp(), action.squeeze(-1))
    entropy = torch.trapezoid(-log_probs.exp() * log_probs, action.squeeze(-1))
    torch.testing.assert_close(volume.item(), 1.0, rtol=1e-4, atol=0)
    torch.testing.assert_close(policy.entropy().item(), entropy.item(), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("scale", "tolerance"), [(0.1, 1e-4), (1.0, 1e-4), (3.0, 0.01)])
def test_the_squashed_entropy_by_draws(scale, tolerance):
    loc = torch.linspace(-4, 4, 9, dtype=torch.float64).unsqueeze(-1)
    policy = TanhNormal(loc, torch.full_like(loc, scale), torch.tensor([-1.0]), torch.tensor([1.0]))
    quantiles = torch.special.ndtri((torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000)
    raw = loc + scale * quantiles
    slope = (2 * (math.log(2) - raw - torch.nn.functional.softplus(-2 * raw))).mean(-1)
    expected = 0.5 * math.log(2 * math.pi * math.e * scale**2) + slope
    torch.testing.assert_close(policy.entropy(), expected, rtol=0, atol=tolerance)


def test_the_squashed_entropy_has_the_gradient_of_its_draws():
    loc, scale = torch.tensor([[0.7]]).requires_grad_(), torch.tensor([[0.8]]).requires_grad_()
    policy = TanhNormal(loc, scale, torch.tensor([-1.0]), torch.tensor([1.0]))
    analytic = torch.autograd.grad(policy.entropy().sum(), (loc, scale), retain_graph=True)
    action = policy.rsample((100_000,))
    drawn = torch.autograd.grad(-policy.log_prob(action).mean(), (loc, scale))
    torch.testing.assert_close(torch.stack(analytic), torch.stack(drawn), rtol=0, atol=0.02)


def test_log_probs_at_the_bounds_are_finite_and_so_are_their_gradients():
    loc, scale = torch.tensor([[0.0, 30.0, -30.0]]).requires_grad_(), torch.ones(1, 3).requires_grad_()
    policy = TanhNormal(loc, scale, LOW, HIGH)
    for action in (LOW, HIGH, policy.sample()):
        log_probs = policy.log_prob(action)
        assert log_probs.isfinite().all()
        assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(log_probs.sum(), (loc, scale)))


def test_half_precision_is_computed_in_single():
    for dtype in (torch.bfloat16, torch.float16):
        logits = torch.randn(50, 4).to(dtype)
        assert Categorical(logits).log_prob(torch.zeros(50, dtype=torch.int64)).dtype == torch.float32
        torch.testing.assert_close(Categorical(logits).entropy(), Categorical(logits.float()).entropy())
        loc, scale = torch.randn(50, 3).to(dtype), torch.ones(50, 3).to(dtype)
        assert TanhNormal(loc, scale, LOW, HIGH).sample().dtype == torch.float32
