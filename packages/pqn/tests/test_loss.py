"""The loss, the network, the targets as a module and the policy."""

import copy

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from tesserl_nn_components import MLP, ImpalaCNN, VectorEncoder
from tesserl_pqn import EpsilonGreedy, PQNLoss, QLambdaTargets, QNetwork, q_lambda_returns


def network(num_quantiles=None, *, num_actions=3, **options):
    torch.manual_seed(1)
    return QNetwork(
        VectorEncoder(5, hidden_sizes=[7], layer_norm=True), num_actions, num_quantiles=num_quantiles, **options
    )


def batch(num_quantiles=None, *shape):
    torch.manual_seed(2)
    shape = shape or (11,)
    return TensorDict(
        {
            "observation": torch.randn(*shape, 5),
            "action": torch.randint(0, 3, shape),
            "value_target": torch.randn(*shape, num_quantiles or 1),
        },
        shape,
    )


class Fixed(nn.Module):
    """A body that returns its input."""

    in_keys, out_features = ["observation"], 2

    def forward(self, observation):
        return observation


def fixed_network(num_quantiles=None):
    """Return a network whose output is its observation, as ``[B, A]`` or ``[B, K, A]`` with A = 2."""

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, features):
            features = features * self.scale
            return features if num_quantiles is None else features.reshape(*features.shape[:-1], num_quantiles, 2)

    return QNetwork(Fixed(), 2, num_quantiles=num_quantiles, head=Head())


def test_the_loss_of_values_by_hand():
    data = TensorDict(
        {
            "observation": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
            "action": torch.tensor([1, 0]),
            "value_target": torch.tensor([[4.0], [2.0]]),
        },
        [2],
    )
    out = PQNLoss(fixed_network())(data)
    assert out["loss"].item() == (0.5 * 4 + 0.5 * 1) / 2
    assert out["td_error"].item() == (2 + 1) / 2
    assert out["chosen_action_value"].item() == (2 + 3) / 2
    assert PQNLoss(fixed_network(), reduction="none")(data)["loss"].tolist() == [2.0, 0.5]
    assert PQNLoss(fixed_network(), reduction="sum")(data)["loss"].item() == 2.5


def test_the_loss_of_quantiles_by_hand():
    data = TensorDict(
        {
            "observation": torch.tensor([[0.0, 9.0, 1.0, 9.0]]),  # K = 2 quantiles of action 0: 0 and 1
            "action": torch.tensor([0]),
            "value_target": torch.tensor([[0.5, 3.0]]),
        },
        [1],
    )
    out = PQNLoss(fixed_network(2))(data)
    assert out["loss"].item() == pytest.approx(0.25 * 2.625 / 2 + (0.25 * 0.125 + 0.75 * 1.5) / 2)
    assert out["td_error"].item() == pytest.approx(1.75 - 0.5)


@pytest.mark.parametrize("num_quantiles", [None, 9])
@pytest.mark.parametrize("dueling", [False, True])
def test_gradients_reach_every_parameter_and_metrics_have_none(num_quantiles, dueling):
    loss = PQNLoss(network(num_quantiles, hidden_sizes=(13,), dueling=dueling))
    out = loss(batch(num_quantiles))
    out["loss"].backward()
    assert all(parameter.grad is not None for parameter in loss.parameters())
    assert not out["td_error"].requires_grad
    assert not out["chosen_action_value"].requires_grad
    assert sorted(out.keys()) == sorted(loss.out_keys)


@pytest.mark.parametrize("num_quantiles", [None, 9])
def test_any_batch_shape_gives_the_same_loss(num_quantiles):
    loss, data = PQNLoss(network(num_quantiles)), batch(num_quantiles, 4, 6)
    torch.testing.assert_close(loss(data)["loss"], loss(data.flatten())["loss"])


def test_one_hot_actions_give_the_same_loss():
    data = batch()
    hot = data.clone().set("action", nn.functional.one_hot(data["action"], 3).bool())
    expected = PQNLoss(network())(data)["loss"]
    assert torch.equal(PQNLoss(network(), action_space="one_hot")(hot)["loss"], expected)


def test_masked_steps_move_no_loss_and_no_metric():
    loss, data = PQNLoss(network()), batch()
    valid = torch.arange(11) % 3 > 0
    masked = data.clone().set(("collector", "mask"), valid)
    masked["value_target"][~valid] = 1e6
    for key, value in loss(data[valid]).items():
        torch.testing.assert_close(loss(masked)[key], value)


@pytest.mark.parametrize("num_quantiles", [None, 9])
def test_reduced_precision_and_compilation_stay_close(num_quantiles):
    loss, data = PQNLoss(network(num_quantiles, hidden_sizes=(13,))), batch(num_quantiles)
    expected = loss(data)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(data)["loss"].item() == pytest.approx(expected.item(), rel=0.05)
    traced = torch.export.export(loss.value_network, (data["observation"],)).module()
    torch.testing.assert_close(traced(data["observation"]), loss.value_network(data["observation"]))


@pytest.mark.parametrize("how", ["deepcopy", "state_dict"])
def test_copies_and_loaded_losses_are_equal(how):
    loss, data = PQNLoss(network(9)), batch(9)
    other = copy.deepcopy(loss)
    if how == "state_dict":
        torch.manual_seed(5)
        other = PQNLoss(QNetwork(VectorEncoder(5, hidden_sizes=[7], layer_norm=True), 3, num_quantiles=9))
        assert other(data)["loss"] != loss(data)["loss"]
        other.load_state_dict(loss.state_dict())
    assert torch.equal(other(data)["loss"], loss(data)["loss"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"action": None}, KeyError, "expected the key 'action'"),
        ({"action": torch.zeros(11, 1).long()}, ValueError, r"action must have the shape \(11,\)"),
        ({"action": torch.zeros(11)}, TypeError, "must hold categories"),
        ({"action": torch.full((11,), 3)}, ValueError, r"action must be in \[0, 3\)"),
        ({"value_target": torch.zeros(11, 2)}, ValueError, r"value_target must have the shape \(11, 1\)"),
    ],
)
def test_wrong_batches_are_named(change, error, message):
    data = batch()
    for key, value in change.items():
        data = data.exclude(key) if value is None else data.set(key, value)
    with pytest.raises(error, match=message):
        PQNLoss(network())(data)


def test_wrong_options_are_named():
    with pytest.raises(TypeError, match="must be a QNetwork"):
        PQNLoss(nn.Linear(2, 2))
    for options, message in [
        ({"kappa": -1.0}, "kappa must be at least 0"),
        ({"action_space": "box"}, "action_space must be"),
        ({"reduction": "max"}, "reduction must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            PQNLoss(network(), **options)
    with pytest.raises(TypeError, match="body must have in_keys, got Linear"):
        QNetwork(nn.Linear(2, 2), 2)
    with pytest.raises(ValueError, match="must be at least 1, got 0 and None"):
        QNetwork(Fixed(), 0)
    with pytest.raises(ValueError, match="head is taken as it is"):
        QNetwork(Fixed(), 2, head=nn.Identity(), dueling=True)


def test_targets_as_a_module_equal_the_formula():
    net = network()
    rollout = TensorDict(
        {
            "next": {
                "observation": torch.randn(4, 6, 5),
                "reward": torch.randn(4, 6, 1),
                "terminated": torch.rand(4, 6, 1) < 0.2,
                "truncated": torch.rand(4, 6, 1) < 0.2,
            }
        },
        [4, 6],
    )
    following = rollout["next"]
    values = net(following["observation"]).amax(-1)
    columns = [following[name].squeeze(-1) for name in ("terminated", "truncated")]
    expected = q_lambda_returns(following["reward"].squeeze(-1), values, *columns, discount=0.9, lambda_=0.7)
    target = QLambdaTargets(net, discount=0.9, lambda_=0.7)(rollout)["value_target"]
    torch.testing.assert_close(target, expected.unsqueeze(-1))
    assert not target.requires_grad
    rollout["next"].set("reward", following["reward"].expand(4, 6, 2))
    with pytest.raises(ValueError, match=r"reward must have the shape \[\*B, T, 1\]"):
        QLambdaTargets(net)(rollout)


@pytest.mark.parametrize("num_quantiles", [None, 9])
def test_networks_have_the_documented_shapes_on_images_too(num_quantiles):
    net = QNetwork(
        ImpalaCNN((3, 16, 16), channels=(4,)), 5, num_quantiles=num_quantiles, hidden_sizes=(13,), dueling=True
    )
    outputs = net(torch.zeros(2, 7, 3, 16, 16, dtype=torch.uint8))
    assert outputs.shape == ((2, 7, 5) if num_quantiles is None else (2, 7, 9, 5))
    assert net.expectation(outputs).shape == (2, 7, 5)
    assert net.bootstrap(outputs).shape == ((2, 7) if num_quantiles is None else (2, 7, 9))


def test_hidden_layers_of_the_head_have_layer_norm_unless_told_otherwise():
    norms = [
        sum(isinstance(module, nn.LayerNorm) for module in network(hidden_sizes=(13,), layer_norm=on).head.modules())
        for on in (True, False)
    ]
    assert norms == [1, 0]
    assert isinstance(network().head, MLP)


def test_epsilon_is_the_share_of_random_actions():
    net, observation = network(), torch.randn(1, 5).expand(20_000, 5)
    torch.manual_seed(0)
    best = EpsilonGreedy(net).act(observation)
    assert len(best.unique()) == 1
    other = (EpsilonGreedy(net, epsilon=0.3).act(observation) != best).float().mean().item()
    assert other == pytest.approx(0.3 * 2 / 3, abs=0.01)  # a random action of three is the best one in a third


@pytest.mark.parametrize("num_quantiles", [None, 9])
def test_the_policy_keeps_what_the_network_returned(num_quantiles):
    net = network(num_quantiles)
    policy, observations = EpsilonGreedy(net, record=True), torch.randn(4, 6, 5)
    for observation in observations:
        policy.act(observation)
    torch.testing.assert_close(policy.pop(), net(observations))
    with pytest.raises(RuntimeError, match="no output was kept"):
        policy.pop()


def test_greedy_draws_nothing_from_the_global_generator_and_repeats_itself():
    net = network()
    net.train()
    policy, observation = (
        EpsilonGreedy(net, epsilon=1.0, evaluation_epsilon=0.5, seed=3, record=True),
        torch.randn(99, 5),
    )
    state = torch.get_rng_state()
    actions = []
    for _ in range(2):
        with policy.greedy() as greedy:
            assert not net.training
            actions.append(greedy.act(observation))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(*actions)
    assert net.training
    assert not torch.equal(actions[0], EpsilonGreedy(net).act(observation))
    with pytest.raises(RuntimeError, match="no output was kept"):
        policy.pop()
    with pytest.raises(ValueError, match=r"epsilon must be in \[0, 1\], got 2"):
        EpsilonGreedy(net, epsilon=2)
