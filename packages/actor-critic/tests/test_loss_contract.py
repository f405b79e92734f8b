"""torchrl's contract on the loss: keys, coefficients, reductions, reset parameters, a value estimator."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributions import Categorical
from torchrl.data import Bounded
from torchrl.modules import ProbabilisticActor, ValueOperator
from torchrl.objectives import ValueEstimators
from torchrl.objectives.value import GAE

from tesserl_actor_critic import ActorCritic, PPOLoss, generalized_advantage_estimate
from tesserl_nn_components import MLP
from tesserl_policy.testing import check_loss_contract, check_reductions

FEATURES, ACTIONS, ENVS, STEPS = 5, 3, 4, 7


class Body(MLP):
    in_keys = ("observation",)


def own_networks():
    return (ActorCritic(Body(FEATURES, [11]), action_space=ACTIONS),)


def torchrl_networks():
    module = TensorDictModule(nn.Linear(FEATURES, ACTIONS), in_keys=["observation"], out_keys=["logits"])
    actor = ProbabilisticActor(module, in_keys=["logits"], distribution_class=Categorical, return_log_prob=True)
    return actor, ValueOperator(nn.Linear(FEATURES, 1), in_keys=["observation"])


NETWORKS = {"ActorCritic": own_networks, "torchrl's": torchrl_networks}
OPTIONS = {"defaults": {}, "clips": {"clip_epsilon_high": 0.3, "value_clip": 0.5, "dual_clip": 3.0}}


def make(networks, options):
    def build(**more):
        torch.manual_seed(0)
        return PPOLoss(*networks(), **options, **more)

    return build


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return TensorDict(
        {
            "observation": torch.randn(ENVS, STEPS, FEATURES),
            "action": torch.randint(ACTIONS, (ENVS, STEPS)),
            "action_log_prob": -1.1 + 0.4 * torch.randn(ENVS, STEPS),
            "advantage": torch.randn(ENVS, STEPS, 1),
            "value_target": torch.randn(ENVS, STEPS, 1),
            "state_value": torch.randn(ENVS, STEPS, 1),
        },
        [ENVS, STEPS],
    )


@pytest.fixture
def rollout(batch):
    following = {
        "observation": torch.randn(ENVS, STEPS, FEATURES),
        "reward": torch.randn(ENVS, STEPS, 1),
        "terminated": torch.rand(ENVS, STEPS, 1) < 0.2,
    }
    following["done"] = following["terminated"] | (torch.rand(ENVS, STEPS, 1) < 0.2)
    return batch.exclude("advantage", "value_target", "state_value").set("next", following)


@pytest.mark.parametrize("networks", NETWORKS.values(), ids=NETWORKS.keys())
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_the_loss_keeps_torchrls_contract(networks, options, batch):
    check_loss_contract(make(networks, options), batch)


def test_scales_that_are_parameters_are_reset_too():
    space = Bounded(-torch.ones(2), torch.ones(2))
    loss = PPOLoss(ActorCritic(Body(FEATURES, [11]), action_space=space))
    scale = dict(loss.named_parameters())["actor_network.module.0.module.head.log_scale"]
    nn.init.constant_(scale, 3.0)
    loss.reset_parameters_recursive()
    assert (scale == 0).all()


@pytest.mark.parametrize("networks", NETWORKS.values(), ids=NETWORKS.keys())
@pytest.mark.parametrize("masked", [False, True])
def test_sums_and_means_are_those_of_the_valid_steps(networks, masked, batch):
    num_valid = ENVS * STEPS
    if masked:
        batch["mask"] = torch.arange(STEPS) < torch.tensor([[7], [2], [5], [1]])
        num_valid = 15
    check_reductions(make(networks, {}), batch, num_valid)
    losses = make(networks, {})(reduction="none")(batch)
    assert losses["loss_objective"].shape == (ENVS, STEPS)
    if masked:
        assert (losses["loss_critic"][~batch["mask"]] == 0).all()


def test_a_reset_gives_the_heads_orthogonal_weights_again():
    loss = make(own_networks, {})()
    network = loss._actor_critic
    nn.init.constant_(last(network), 3.0)
    loss.reset_parameters_recursive()
    weight = last(network)
    torch.testing.assert_close(weight @ weight.T, 1e-4 * torch.eye(ACTIONS), rtol=0, atol=1e-7)  # a gain of 0.01


def last(network):
    return [module for module in network.policy.modules() if isinstance(module, nn.Linear)][-1].weight


@pytest.mark.parametrize("networks", NETWORKS.values(), ids=NETWORKS.keys())
def test_after_make_value_estimator_a_call_estimates_advantages(networks, rollout):
    loss = make(networks, {})()
    with pytest.raises(KeyError, match="expected the key 'advantage'"):
        loss(rollout)
    assert loss.make_value_estimator(gamma=0.9, lmbda=0.8) is loss
    found = loss(rollout.lock_())
    assert "advantage" not in rollout.keys()  # noqa: SIM118
    with torch.no_grad():
        value, next_value = (loss.critic_network(part.copy())["state_value"] for part in (rollout, rollout["next"]))
    ended, terminated = rollout["next", "done"], rollout["next", "terminated"]
    reward = rollout["next", "reward"]
    given = rollout.copy()
    given["advantage"], given["value_target"] = generalized_advantage_estimate(
        reward, value, next_value, terminated, ended & ~terminated, discount=0.9, gae_lambda=0.8
    )
    expected = loss(given)
    for key in expected.keys():  # noqa: SIM118
        torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-6)
    assert ("next", "reward") in loss.in_keys
    assert not {"advantage", "value_target"} & set(loss.in_keys)


@pytest.mark.parametrize("kind", [ValueEstimators.TD0, ValueEstimators.TD1, ValueEstimators.TDLambda, "instance"])
def test_other_value_estimators_are_torchrls(kind, rollout):
    loss = make(own_networks, {})()
    if kind == "instance":
        kind = GAE(gamma=0.9, lmbda=0.5, value_network=loss.critic_network)
    loss.make_value_estimator(kind)
    renamed = rollout.copy()
    renamed["next", "gain"] = renamed["next"].pop("reward")
    expected = loss(rollout)
    loss.set_keys(reward="gain")
    torch.testing.assert_close(loss(renamed)["loss_critic"], expected["loss_critic"])
    assert expected["loss_critic"] > 0


def test_an_estimator_that_ppo_cannot_use_is_refused():
    with pytest.raises(NotImplementedError, match="VTrace"):
        make(own_networks, {})().make_value_estimator(ValueEstimators.VTrace)


def test_unknown_reductions_are_refused():
    with pytest.raises(ValueError, match="reduction must be one of mean, sum, none, got 'median'"):
        make(own_networks, {})(reduction="median")
