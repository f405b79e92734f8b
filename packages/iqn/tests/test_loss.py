"""The loss by hand: a network whose quantiles are its observations makes every number exact."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn

from tesserl_iqn import QuantileNetwork
from tesserl_iqn.functional import munchausen_target
from tesserl_nn_components import VectorEncoder


class Scale(nn.Module):
    """A body, or a head, that multiplies its input by one weight for each feature."""

    def __init__(self, num_features):
        super().__init__()
        self.in_keys = ["observation"]
        self.out_features = num_features
        self.scale = nn.Parameter(torch.ones(num_features))

    def forward(self, observation):
        return observation * self.scale


class Ones(nn.Module):
    """An embedding that leaves the features as they are, whatever the taus."""

    def forward(self, taus):
        return torch.ones_like(taus).unsqueeze(-1)


def observation_network(num_actions=2, num_blocks=None):
    """Every quantile of action a is the observation's a-th feature times the scales of body and head."""
    width = num_actions * (num_blocks or 1)
    head = nn.Sequential(Scale(width), *([] if num_blocks is None else [nn.Unflatten(-1, (num_blocks, num_actions))]))
    net = QuantileNetwork(Scale(width), num_actions, num_blocks=num_blocks, head=head)
    net.embedding = Ones()
    return net


def transition(**changes):
    """One transition; antithetic taus add up to K / 2, so that the loss below is exact."""
    entries = {
        "observation": [[1.0, 3.0]],
        "action": [0],
        "reward": [[0.5]],
        "next_observation": [[2.0, 5.0]],
        "terminated": [[False]],
        **changes,
    }
    tensors = {key: torch.as_tensor(value) for key, value in entries.items()}
    following = {key: tensors.pop(key) for key in ("reward", "terminated")}
    return TensorDict({**tensors, "next": {**following, "observation": tensors.pop("next_observation")}}, [1])


@pytest.fixture
def exact_loss(make_loss):
    """Build a loss around the observation network; its target multiplies by ``target_scale``."""

    def build(target_scale=(2.0, 2.0), *, num_blocks=None, **options):
        defaults = {"tau_sampling": "antithetic", "discount": 0.9}
        loss = make_loss(observation_network(num_blocks=num_blocks), **{**defaults, **options})
        # body and head of the target prefer opposite actions, so that no mixture with the online network is right
        head_scale = torch.tensor([4.0, 1.0] * (num_blocks or 1))
        loss.target_value_network.head[0].scale.copy_(head_scale)
        loss.target_value_network.body.scale.copy_(torch.tensor(target_scale) / head_scale)
        return loss

    return build


def test_loss_and_td_error_are_the_hand_computed_numbers(exact_loss):
    batch = transition()
    # Q(s, 0) = 1; next the online network prefers action 1, worth 2 * 5 to the target: 0.5 + 0.9 * 10 - 1 = 8.5
    loss = exact_loss()(batch)["loss"]
    torch.testing.assert_close(batch["td_error"], torch.tensor([8.5]))
    # sum over 8 taus of tau * (8.5 - 0.5) = 4 * 8
    torch.testing.assert_close(loss, torch.tensor(32.0))


def test_bootstrap_stops_at_termination_only(exact_loss):
    loss = exact_loss()
    ended, cut = transition(terminated=[[True]]), transition()
    cut["next", "truncated"] = cut["next", "done"] = torch.tensor([[True]])
    loss(ended)
    loss(cut)
    torch.testing.assert_close(ended["td_error"], torch.tensor([0.5]))  # the target is the reward 0.5
    torch.testing.assert_close(cut["td_error"], torch.tensor([8.5]))


@pytest.mark.parametrize("steps", [[3], [[3]]])
def test_bootstrap_is_discounted_by_the_steps_that_were_summed(exact_loss, steps):
    batch = transition(steps_to_next_obs=steps)
    exact_loss()(batch)
    torch.testing.assert_close(batch["td_error"], torch.tensor([0.5 + 0.9**3 * 10 - 1]))


def test_double_q_takes_the_online_choice_and_the_target_value(exact_loss):
    online, target = transition(), transition()
    exact_loss((2.0, -1.0))(online)
    exact_loss((2.0, -1.0), double=False)(target)
    torch.testing.assert_close(online["td_error"], torch.tensor([abs(0.5 + 0.9 * -5 - 1)]))
    torch.testing.assert_close(target["td_error"], torch.tensor([0.5 + 0.9 * 4 - 1]))  # the target prefers action 0


@pytest.mark.parametrize(("log_policy", "current"), [("target", [[2.0, 6.0]]), ("online", [[1.0, 3.0]])])
def test_munchausen_takes_the_bonus_from_the_network_of_choice(exact_loss, log_policy, current):
    batch = transition()
    options = {"munchausen_alpha": 0.8, "munchausen_temperature": 2.0, "munchausen_clip": -10.0}
    exact_loss(**options, munchausen_log_policy=log_policy)(batch)
    next_value = torch.tensor([[4.0, 10.0]])
    target = munchausen_target(
        torch.tensor([0.5]),
        torch.tensor([0.9]),
        torch.tensor([0]),
        torch.tensor(current),
        next_value,
        next_value.unsqueeze(1),
        alpha=0.8,
        temperature=2.0,
        clip=-10.0,
    )
    torch.testing.assert_close(batch["td_error"], (target - 1).abs().squeeze(-1))


def test_a_perfect_prediction_has_no_loss(exact_loss):
    batch = transition(observation=[[9.5, 0.0]])
    assert exact_loss()(batch)["loss"].item() == pytest.approx(0.0, abs=1e-12)
    assert batch["td_error"].item() == pytest.approx(0.0, abs=1e-6)


def test_blocks_are_averaged_and_each_bootstraps_on_its_own_best_action(exact_loss):
    batch = transition(
        observation=[[1.0, 3.0, 7.0, 8.0]], next_observation=[[2.0, 5.0, 6.0, 4.0]], action=[[0, 1]], reward=[[0.5]]
    )
    loss = exact_loss((2.0, 2.0, 2.0, 2.0), num_blocks=2)(batch)["loss"]
    # block 0: 0.5 + 0.9 * 10 - 1 = 8.5; block 1: 0.5 + 0.9 * 12 - 8 = 3.3
    torch.testing.assert_close(batch["td_error"], torch.tensor([(8.5 + 3.3) / 2]))
    torch.testing.assert_close(loss, torch.tensor(4 * (8.0 + 2.8) / 2))


@pytest.mark.parametrize("num_blocks", [None, 2])
def test_one_hot_actions_give_the_loss_of_categories(make_loss, make_batch, num_blocks):
    batch = make_batch(6, num_blocks=num_blocks)
    one_hot = batch.clone()
    one_hot["action"] = nn.functional.one_hot(batch["action"], 3).flatten(1)
    losses = []
    for action_space, data in (("categorical", batch), ("one_hot", one_hot)):
        torch.manual_seed(0)
        loss = make_loss(num_blocks=num_blocks, action_space=action_space)
        losses.append(loss(data)["loss"])
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("munchausen_alpha", [None, 0.9])
@pytest.mark.parametrize("num_blocks", [None, 2])
def test_leading_dimensions_are_only_batch(make_loss, make_batch, munchausen_alpha, num_blocks):
    loss = make_loss(num_blocks=num_blocks, munchausen_alpha=munchausen_alpha, reduction="none", noisy=False)
    batch = make_batch(4, 6, num_blocks=num_blocks)
    flat = batch.reshape(-1)
    results = []
    for data in (batch, flat):
        torch.manual_seed(0)
        results.append(loss(data)["loss"])
    assert results[0].shape == batch["td_error"].shape == (4, 6)
    torch.testing.assert_close(results[0].flatten(), results[1])
    torch.testing.assert_close(batch["td_error"].flatten(), flat["td_error"])


def test_priority_weights_multiply_each_element(make_loss, make_batch):
    loss = make_loss(reduction="none", noisy=False)
    batch, weight = make_batch(6), torch.rand(6)
    results = {}
    for reduction in ("none", "sum", "mean"):
        for name, data in (("plain", batch.clone()), ("weighted", batch.clone().set("priority_weight", weight))):
            torch.manual_seed(0)
            loss.reduction = reduction
            results[reduction, name] = loss(data)["loss"]
    each = results["none", "plain"]
    torch.testing.assert_close(results["none", "weighted"], each * weight)
    torch.testing.assert_close(results["sum", "weighted"], (each * weight).sum())
    torch.testing.assert_close(results["mean", "weighted"], (each * weight).mean())
    torch.testing.assert_close(results["mean", "plain"], each.mean())


def test_masked_transitions_move_neither_loss_nor_gradient_nor_priority(make_loss, make_batch):
    loss = make_loss(noisy=False)
    batch = make_batch(6)
    mask = torch.tensor([True, True, False, True, False, True])
    batch["collector", "mask"] = mask
    gradients, values = [], []
    for padding in (3.0, 1e6):
        batch["next", "reward"][~mask] = padding
        torch.manual_seed(0)
        value = loss(batch)["loss"]
        loss.zero_grad()
        value.backward()
        values.append(value.detach())
        gradients.append([parameter.grad.clone() for parameter in loss.parameters()])
        assert (batch["td_error"][~mask] == 0).all()
        assert (batch["td_error"][mask] > 0).all()
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)


def test_gradient_reaches_the_online_network_and_not_the_target(make_loss, make_batch):
    loss = make_loss(munchausen_alpha=0.9, munchausen_log_policy="online", num_blocks=2)
    loss(make_batch(64, num_blocks=2))["loss"].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in loss.value_network.parameters())
    assert all(parameter.grad is None for parameter in loss.target_value_network.parameters())
    registered = {id(parameter) for parameter in loss.parameters()}
    assert registered == {id(parameter) for parameter in loss.value_network.parameters()}


@pytest.mark.parametrize("options", [{}, {"double": False}, {"munchausen_alpha": 0.9}])
def test_the_bootstrap_carries_no_gradient(make_loss, make_batch, options):
    loss = make_loss(noisy=False, **options)
    batch = make_batch(6)
    batch["next", "observation"].requires_grad_()
    loss(batch)["loss"].backward()
    assert batch["next", "observation"].grad is None


def test_noise_of_both_networks_is_drawn_anew_in_training_and_kept_in_evaluation(make_loss, make_batch):
    loss, batch = make_loss(), make_batch(6)

    def noise():
        networks = (loss.value_network, loss.target_value_network)
        return [network.head.advantage.layers[0].epsilon_in.clone() for network in networks]

    loss(batch)
    first = noise()
    loss(batch)
    second = noise()
    for drawn in (*zip(first, second, strict=True), tuple(second)):
        assert not torch.equal(*drawn)
    loss.eval()
    loss(batch)
    assert all(torch.equal(*kept) for kept in zip(second, noise(), strict=True))
    assert not loss.target_value_network.training
    assert loss.train().value_network.training


def test_keys_can_be_renamed_and_the_network_may_be_a_tensordict_module(make_loss, make_batch):
    plain, batch = make_loss(noisy=False, reduction="none"), make_batch(6)
    torch.manual_seed(0)
    expected = plain(batch)["loss"]
    wrapped = TensorDictModule(plain.value_network, in_keys=["state", "taus"], out_keys=["quantile_values"])
    loss = make_loss(wrapped, reduction="none")
    loss.set_keys(action="choice", reward="gain", terminated="over", priority="error")
    renamed = TensorDict(
        {
            "state": batch["observation"],
            "choice": batch["action"],
            "next": {
                "state": batch["next", "observation"],
                "gain": batch["next", "reward"],
                "over": batch["next", "terminated"],
            },
        },
        [6],
    )
    assert loss.in_keys == ["state", "choice", ("next", "state"), ("next", "gain"), ("next", "over")]
    torch.manual_seed(0)
    torch.testing.assert_close(loss(renamed)["loss"], expected)
    torch.testing.assert_close(renamed["error"], batch["td_error"])


def test_can_be_called_with_the_entries_as_arguments(make_loss, make_batch):
    loss, batch = make_loss(noisy=False), make_batch(6)
    torch.manual_seed(0)
    expected = loss(batch)["loss"]
    torch.manual_seed(0)
    entries = {"_".join(key) if isinstance(key, tuple) else key: batch[key] for key in loss.in_keys}
    torch.testing.assert_close(loss(**entries), expected)


@pytest.mark.parametrize("munchausen_alpha", [None, 0.9])
def test_bfloat16_is_finite_and_close(make_loss, make_batch, munchausen_alpha):
    loss, batch = make_loss(noisy=False, munchausen_alpha=munchausen_alpha), make_batch(64)
    torch.manual_seed(0)
    expected = loss(batch)["loss"]
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = loss(batch)["loss"]
    loss.to(torch.bfloat16)
    torch.manual_seed(0)
    narrow = loss(batch.apply(lambda entry: entry.bfloat16() if entry.is_floating_point() else entry))["loss"]
    narrow.backward()
    assert all(parameter.grad.isfinite().all() for parameter in loss.parameters())
    torch.testing.assert_close(torch.stack([mixed, narrow]), expected.expand(2), rtol=0.05, atol=0.01)


@pytest.mark.parametrize("munchausen_alpha", [None, 0.9])
def test_compiles_without_a_graph_break(make_loss, make_batch, munchausen_alpha):
    loss, batch = make_loss(munchausen_alpha=munchausen_alpha), make_batch(6)
    compiled = torch.compile(lambda tensordict: loss(tensordict)["loss"], fullgraph=True, backend="aot_eager")
    torch.manual_seed(0)
    value = compiled(batch.clone())
    value.backward()
    torch.manual_seed(0)
    torch.testing.assert_close(value, loss(batch)["loss"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"discount": 1.7}, r"discount must be in \[0, 1\], got 1.7"),
        ({"kappa": -1.0}, "kappa must be at least 0, got -1.0"),
        ({"num_taus": 0}, "number of taus must be at least 1, got 0"),
        ({"num_policy_taus": 7, "tau_sampling": "antithetic"}, "antithetic taus come in pairs"),
        ({"tau_sampling": "midpoints"}, "tau_sampling of the loss must draw taus, got 'midpoints'"),
        ({"munchausen_alpha": 1.5}, r"munchausen_alpha must be None or in \[0, 1\], got 1.5"),
        ({"munchausen_temperature": 0.0}, "munchausen_temperature must be above 0, got 0.0"),
        ({"munchausen_clip": 1.0}, "munchausen_clip must be at most 0, got 1.0"),
        ({"munchausen_log_policy": "both"}, "munchausen_log_policy must be target or online, got 'both'"),
        ({"action_space": "box"}, "action_space must be categorical or one_hot, got 'box'"),
        ({"reduction": "max"}, "reduction must be mean, sum or none, got 'max'"),
    ],
)
def test_options_out_of_range_are_refused(make_loss, options, message):
    with pytest.raises(ValueError, match=message):
        make_loss(**options)


def test_a_network_of_another_kind_is_refused(make_loss):
    with pytest.raises(TypeError, match="network must be a QuantileNetwork or a TensorDictModule around one, got"):
        make_loss(VectorEncoder(5, hidden_sizes=[7]))


@pytest.mark.parametrize(
    ("key", "entry", "error", "message"),
    [
        ("action", torch.zeros(6, 1), ValueError, r"action must have the shape \(6,\) for action_space='categorical'"),
        (("next", "reward"), torch.zeros(6), ValueError, r"both have the shape \[\*B, 1\], got \(6,\) and \(6, 1\)"),
        (("next", "terminated"), None, KeyError, "expected the key 'terminated', the batch has .* set_keys"),
        ("observation", None, KeyError, "expected the key 'observation', the batch has"),
        ("next", None, KeyError, "expected the key 'next', the batch has"),
    ],
)
def test_bad_batches_are_refused(make_loss, make_batch, key, entry, error, message):
    batch = make_batch(6)
    batch = batch.exclude(key) if entry is None else batch.set(key, entry)
    with pytest.raises(error, match=message):
        make_loss()(batch)


def test_a_call_with_a_batch_alone_gives_what_torchrls_way_in_gives_and_calls_hooks(exact_loss):
    loss, calls = exact_loss(), []
    torch.manual_seed(0)
    straight = loss(transition())["loss"]
    hook = loss.register_forward_hook(lambda *_: calls.append("hook"))
    torch.manual_seed(0)
    assert torch.equal(loss(transition())["loss"], straight)
    hook.remove()
    torch.manual_seed(0)
    assert torch.equal(loss.results(transition())["loss"], straight)
    assert calls == ["hook"]
