"""One interface to torchrl actors and to modules that are called directly."""

import pytest
import torch
import torchrl.modules
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributions import Categorical, Independent, Normal, OneHotCategorical
from torchrl.modules import MaskedCategorical, ProbabilisticActor, TanhNormal

from tesserl_policy import action_entropy, action_log_probs, check_actor, log_mean_density, policy_distribution

FEATURES, ACTIONS, STEPS = 5, 3, 7


class Direct(nn.Module):
    """A policy that is called without TensorDicts."""

    in_keys = ("observation",)

    def __init__(self, returns=lambda logits: (logits,)):
        super().__init__()
        self.network = nn.Linear(FEATURES, ACTIONS)
        self.returns = returns

    def policy_parameters(self, observation):
        return self.returns(self.network(observation))

    def distribution(self, logits):
        return Categorical(logits=logits, validate_args=False)


def as_actor(network):
    module = TensorDictModule(network, in_keys=["observation"], out_keys=["logits"])
    return ProbabilisticActor(module, in_keys=["logits"], distribution_class=Categorical)


@pytest.mark.parametrize("returns", [lambda logits: logits, lambda logits: (logits,), lambda logits: [logits]])
def test_a_torchrl_actor_and_a_direct_module_have_the_same_distribution(returns):
    direct, observation = Direct(returns), torch.randn(STEPS, FEATURES)
    for policy in (direct, as_actor(direct.network)):
        check_actor(policy)
        distribution = policy_distribution(policy, {"observation": observation}, [STEPS])
        torch.testing.assert_close(distribution.probs, direct.network(observation).softmax(dim=-1))


def test_a_module_whose_methods_belong_to_the_instance_is_called_directly():
    class Wrapper(nn.Module):
        def __init__(self, wrapped):
            super().__init__()
            self.wrapped = wrapped

        def __getattr__(self, name):
            return super().__getattr__(name) if name == "wrapped" else getattr(self.wrapped, name)

    policy, observation = Wrapper(Direct()), torch.randn(STEPS, FEATURES)
    check_actor(policy)
    assert policy_distribution(policy, {"observation": observation}, [STEPS]).logits.shape == (STEPS, ACTIONS)


@pytest.mark.parametrize(
    ("actor", "message"),
    [
        (nn.Linear(1, 1), r"must be a torchrl ProbabilisticActor, or have in_keys, .*, got Linear; wrap a network"),
        (type("Callable", (), {"in_keys": (), "get_dist": None})(), r"must be an nn.Module with .*without any \(Calla"),
    ],
)
def test_other_actors_are_rejected(actor, message):
    with pytest.raises(TypeError, match=message):
        check_actor(actor)


def test_outputs_that_are_not_tensors_are_named():
    class Output(dict):
        pass

    with pytest.raises(TypeError, match=r"policy_parameters of Direct must return .*, got Output; return its tensors"):
        policy_distribution(Direct(lambda logits: Output(logits=logits)), {"observation": torch.randn(2, 5)}, [2])


def test_log_probs_and_entropies_are_those_of_whole_actions():
    loc = torch.randn(2, STEPS, 4)
    parts, whole = Normal(loc, 0.5), Independent(Normal(loc, 0.5), 1)
    action = parts.sample()
    expected = whole.log_prob(action)
    torch.testing.assert_close(action_log_probs(whole, action, (2, STEPS)), expected)
    torch.testing.assert_close(action_log_probs(parts, action, (2, STEPS)), expected)
    torch.testing.assert_close(action_entropy(parts, 2), whole.entropy())


def test_a_distribution_without_an_entropy_has_an_estimate_with_a_gradient():
    torch.manual_seed(0)
    loc = torch.zeros(4000, 1, requires_grad=True)
    entropy = action_entropy(TanhNormal(loc, torch.full_like(loc, 0.1)), 1)
    entropy.mean().backward()
    # a narrow Gaussian through tanh around 0 is nearly the Gaussian: 0.5 log(2 pi e 0.01) = -0.884
    assert entropy.mean().item() == pytest.approx(-0.884, abs=0.05)
    assert loc.grad.isfinite().all()


def test_half_precision_is_computed_in_float32():
    logits = torch.randn(STEPS, ACTIONS, dtype=torch.bfloat16)
    distribution = Categorical(logits=logits)
    assert action_log_probs(distribution, torch.zeros(STEPS, dtype=torch.int64), (STEPS,)).dtype == torch.float32
    assert action_entropy(distribution, 1).dtype == torch.float32


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (
            torch.zeros(STEPS),
            TypeError,
            r"must be what the policy's Categorical draws, got torch.float32; convert with",
        ),
        (
            torch.zeros(STEPS, 1, dtype=torch.int64),
            ValueError,
            r"one log-probability per step \(7,\), got \(7, 7\) for actions \(7, 1\); drop singleton dimensions",
        ),
        (torch.full((STEPS,), ACTIONS), ValueError, r"must be what the policy's Categorical draws, got torch.int64"),
    ],
)
def test_actions_that_the_policy_cannot_draw_are_named(action, error, message):
    distribution = Categorical(logits=torch.zeros(STEPS, ACTIONS), validate_args=False)
    with pytest.raises(error, match=message):
        action_log_probs(distribution, action, (STEPS,))


@pytest.mark.parametrize("kind", [Categorical, OneHotCategorical, torchrl.modules.OneHotCategorical])
def test_the_mean_probability_is_the_sum_of_squared_probabilities(kind):
    logits = torch.randn(STEPS, ACTIONS, dtype=torch.float64)
    expected = logits.softmax(-1).square().sum(-1).log()
    torch.testing.assert_close(log_mean_density(kind(logits=logits), 1), expected)
    blocks = kind(logits=logits.unsqueeze(1).expand(STEPS, 2, ACTIONS))
    torch.testing.assert_close(log_mean_density(blocks, 1), 2 * expected)


def test_the_mean_probability_counts_allowed_actions_only():
    logits, mask = torch.randn(STEPS, ACTIONS), torch.tensor([True, False, True]).expand(STEPS, ACTIONS)
    expected = logits[:, [0, 2]].softmax(-1).square().sum(-1).log()
    torch.testing.assert_close(log_mean_density(MaskedCategorical(logits=logits, mask=mask), 1), expected)


def test_the_mean_density_of_gaussians_is_the_integral_of_the_squared_density():
    loc, scale = torch.randn(STEPS, 2, dtype=torch.float64), torch.rand(STEPS, 2, dtype=torch.float64) + 0.3
    grid = torch.linspace(-20, 20, 40_001, dtype=torch.float64)[:, None, None]
    density = Normal(loc, scale).log_prob(grid).exp()
    expected = torch.trapezoid(density.square(), grid, dim=0).log().sum(-1)
    for distribution in (Normal(loc, scale), Independent(Normal(loc, scale), 1)):
        torch.testing.assert_close(log_mean_density(distribution, 1), expected)


def test_a_distribution_without_a_closed_mean_density_is_named():
    with pytest.raises(TypeError, match=r"must be categorical or normal, or have log_mean_density\(\), got TanhNormal"):
        log_mean_density(TanhNormal(torch.zeros(STEPS, 2), torch.ones(STEPS, 2)), 1)
