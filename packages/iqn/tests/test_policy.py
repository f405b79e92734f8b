"""Acting: values, risk, exploration and evaluation."""

import json
import math
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torchrl.envs.utils import ExplorationType, set_exploration_type

from tesserl_iqn import QuantileNetwork, QuantilePolicy
from tesserl_nn_components import SpectralConv2d, VectorEncoder

DUELING = json.loads((Path(__file__).parent / "vectors" / "dueling.json").read_text())["quantile"]


class Arms(QuantileNetwork):
    """Two arms in every state: a certain 0.4, and a return that is uniform on [0, 1] around the observation."""

    def __init__(self, num_blocks=None):
        super().__init__(VectorEncoder(1, hidden_sizes=[]), 2, num_blocks=num_blocks, hidden_sizes=())

    def quantiles(self, features, taus):
        risky = features + taus if features.dim() == 1 else features + taus.expand(*features.shape[:-1], -1)
        arms = torch.stack([torch.full_like(risky, 0.4), risky], dim=-1)
        return arms if self.num_blocks is None else torch.stack([arms, arms.flip(-1), arms], dim=-2)


def policy(**options):
    body = VectorEncoder(5, hidden_sizes=[7])
    network = QuantileNetwork(
        body, 3, hidden_sizes=(11,), dueling=True, noisy=True, num_blocks=options.pop("blocks", None)
    )
    return QuantilePolicy(network, **options)


def test_action_value_is_the_mean_over_taus_and_the_best_action_is_taken():
    act = QuantilePolicy(Arms(), tau_sampling="midpoints", num_taus=10)
    torch.testing.assert_close(act.action_value(torch.zeros(4, 1)), torch.tensor([[0.4, 0.5]]).expand(4, 2))
    assert act.act(torch.tensor([[0.0], [-0.2], [0.1]])).tolist() == [1, 0, 1]


def test_a_dueling_network_acts_on_the_mean_over_taus_of_its_reference():
    class Fixed(Arms):
        def quantiles(self, features, taus):
            return torch.tensor(DUELING["q"])

    assert QuantilePolicy(Fixed()).act(torch.zeros(2, 1)).tolist() == DUELING["argmax_mean_q"]


@pytest.mark.parametrize(
    ("risk", "expected"),
    [
        (None, 0.5),
        (("cvar", 0.2), 0.1),  # the mean of eta * tau
        (("pow", 1.0), 2 / 3),  # the mean of sqrt(tau)
        (("pow", -1.0), 1 / 3),
        (("wang", -0.75), 0.5 * math.erfc(0.375)),  # Phi(-0.75 / sqrt(2))
    ],
)
def test_risk_changes_the_value_of_the_risky_arm_only(risk, expected):
    act = QuantilePolicy(Arms(), tau_sampling="midpoints", num_taus=10_000, risk=risk)
    torch.testing.assert_close(act.action_value(torch.zeros(1, 1)), torch.tensor([[0.4, expected]]), rtol=0, atol=1e-3)
    assert act.act(torch.zeros(1, 1)).item() == (expected > 0.4)


@pytest.mark.parametrize(("greedy_risk", "value", "action"), [(True, 0.1, 0), (False, 0.5, 1)])
def test_risk_may_be_a_part_of_exploration(greedy_risk, value, action):
    act = QuantilePolicy(Arms(), num_taus=1_000, risk=("cvar", 0.2), greedy_risk=greedy_risk)
    observation = torch.zeros(1, 1)
    with act.greedy():
        torch.testing.assert_close(act.action_value(observation)[0, 1].item(), value, rtol=0, atol=1e-3)
        assert act.act(observation).item() == action
    assert act.risk == ("cvar", 0.2)
    assert act.act(observation).item() == 0


def test_epsilon_is_the_probability_of_a_uniform_action_and_may_differ_by_observation():
    act = QuantilePolicy(Arms(), tau_sampling="midpoints", generator=torch.Generator().manual_seed(1))
    observation = torch.ones(2, 20_000, 1)  # the risky arm is best
    act.epsilon = 0.3
    assert (act.act(observation) == 0).float().mean().item() == pytest.approx(0.15, abs=0.006)
    act.epsilon = torch.tensor([[0.0], [1.0]])
    share = (act.act(observation) == 0).float().mean(dim=-1)
    assert share[0] == 0
    assert share[1].item() == pytest.approx(0.5, abs=0.012)


def test_temperature_draws_from_the_softmax_of_the_values():
    class Three(Arms):
        def quantiles(self, features, taus):
            return torch.tensor([0.0, 0.1, 0.4]).expand(*features.shape[:-1], taus.shape[-1], 3)

    act = QuantilePolicy(Three(), temperature=0.2, generator=torch.Generator().manual_seed(1))
    share = act.act(torch.zeros(40_000, 1)).bincount() / 40_000
    torch.testing.assert_close(share, torch.softmax(torch.tensor([0.0, 0.5, 2.0]), dim=0), rtol=0, atol=0.008)


def test_each_block_explores_on_its_own():
    act = QuantilePolicy(
        Arms(num_blocks=3), tau_sampling="midpoints", epsilon=0.5, generator=torch.Generator().manual_seed(1)
    )
    action = act.act(torch.ones(20_000, 1))
    assert action.shape == (20_000, 3)
    explored = action != torch.tensor([1, 0, 1])
    torch.testing.assert_close(explored.float().mean(dim=0), torch.full((3,), 0.25), rtol=0, atol=0.012)
    both = (explored[:, 0] & explored[:, 1]).float().mean().item()
    assert both == pytest.approx(0.25**2, abs=0.008)


def test_a_generator_makes_all_draws_reproducible_and_leaves_the_global_one_alone():
    act = policy(epsilon=0.5, temperature=0.1, generator=torch.Generator())
    observation = torch.randn(64, 5)
    before = torch.get_rng_state()
    actions = []
    for seed in (1, 1, 2):
        act.generator.manual_seed(seed)
        actions.append(act.act(observation))
    assert torch.equal(actions[0], actions[1])
    assert not torch.equal(actions[0], actions[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_is_drawn_at_each_call_unless_told_otherwise():
    act, observation = policy(tau_sampling="midpoints"), torch.randn(4, 5)
    buffer = act.network.head.value.layers[0].epsilon_in
    act.act(observation)
    first = buffer.clone()
    act.act(observation)
    second = buffer.clone()
    act.redraw_noise = False
    act.act(observation)
    assert first.abs().sum() > 0
    assert not torch.equal(first, second)
    assert torch.equal(buffer, second)


def test_greedy_is_deterministic_and_leaves_noise_mode_settings_and_randomness_as_they_were():
    act, observation = policy(epsilon=0.5, temperature=0.3), torch.randn(64, 5)
    act.act(observation)
    act.network.body.eval()
    buffers = {name: buffer.clone() for name, buffer in act.network.named_buffers()}
    state = torch.get_rng_state()
    with act.greedy():
        first, second = act.act(observation), act.act(observation)
        assert not act.network.training
        noise = act.network.head.value.layers[0].epsilon_in
        assert noise.abs().sum() == 0
        act.network.train()
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    for name, buffer in act.network.named_buffers():
        assert torch.equal(buffer, buffers[name])
    assert act.network.training
    assert not act.network.body.training
    assert (act.epsilon, act.temperature, act.redraw_noise, act.tau_sampling) == (0.5, 0.3, True, "uniform")


def test_greedy_restores_after_an_error():
    act = policy(epsilon=0.5)
    with pytest.raises(ValueError, match="observation must have the shape"), act.greedy():
        act.act(torch.randn(4, 6))
    assert act.epsilon == 0.5


@pytest.mark.parametrize("blocks", [None, 2])
@pytest.mark.parametrize("action_space", ["categorical", "one_hot"])
def test_writes_action_and_values_into_a_tensordict(blocks, action_space):
    act = policy(blocks=blocks, action_space=action_space, epsilon=0.5)
    batch = act(TensorDict({"observation": torch.randn(4, 6, 5)}, [4, 6]))
    slots = () if blocks is None else (blocks,)
    value, action = batch["action_value"], batch["action"]
    assert value.shape == (4, 6, *slots, 3)
    if action_space == "one_hot":
        assert action.shape == (4, 6, 3 * (blocks or 1))
        action = action.reshape(4, 6, *slots, 3).argmax(dim=-1)
    assert action.shape == (4, 6, *slots)
    chosen = value.gather(-1, action.unsqueeze(-1)).reshape(4, 6, -1).mean(dim=-1, keepdim=True)
    torch.testing.assert_close(batch["chosen_action_value"], chosen)
    assert not value.requires_grad


def test_torchrl_decides_whether_a_tensordict_call_explores():
    act = policy(epsilon=1.0)
    batch = TensorDict({"observation": torch.randn(200, 5)}, [200])
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        first, second = act(batch.clone())["action"], act(batch.clone())["action"]
    with set_exploration_type(ExplorationType.RANDOM):
        third = act(batch.clone())["action"]
    with act.greedy():
        assert torch.equal(first, act.act(batch["observation"]))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert not torch.equal(first, act(batch.clone())["action"])  # nothing set: explores


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_taus": 0}, "number of taus must be at least 1"),
        ({"risk": ("cvar", 0.0)}, r"eta of cvar must be in \(0, 1\]"),
        ({"action_space": "box"}, "action_space must be categorical or one_hot, got 'box'"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        policy(**options)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epsilon", 1.5, r"epsilon must be in \[0, 1\], got 1.5"),
        ("epsilon", -0.1, r"epsilon must be in \[0, 1\], got -0.1"),
        ("temperature", -1.0, "temperature must be at least 0, got -1.0"),
    ],
)
def test_exploration_out_of_range_is_refused_when_it_is_used(name, value, message):
    act = policy()
    setattr(act, name, value)
    with pytest.raises(ValueError, match=message):
        act.act(torch.randn(4, 5))


def test_a_network_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="network must be a QuantileNetwork"):
        QuantilePolicy(nn.Linear(5, 3))


def test_blocks_explore_all_at_once_where_one_coin_is_thrown_for_all():
    act = QuantilePolicy(
        Arms(num_blocks=3),
        tau_sampling="midpoints",
        epsilon=0.5,
        explore_per_block=False,
        generator=torch.Generator().manual_seed(1),
    )
    explored = act.act(torch.ones(20_000, 1)) != torch.tensor([1, 0, 1])
    torch.testing.assert_close(explored.float().mean(dim=0), torch.full((3,), 0.25), rtol=0, atol=0.012)
    both = (explored[:, 0] & explored[:, 1]).float().mean().item()
    assert both == pytest.approx(0.5 * 0.25, abs=0.008)
    act.epsilon = torch.tensor([0.0, 1.0]).expand(5_000, 2)
    explored = act.act(torch.ones(5_000, 2, 1)) != torch.tensor([1, 0, 1])
    assert not explored[:, 0].any()
    assert explored[:, 1].float().mean().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("blocks", [None, 3])
def test_greedy_actions_are_marked_whether_drawn_or_not(blocks):
    act = QuantilePolicy(
        Arms(num_blocks=blocks), tau_sampling="midpoints", epsilon=0.5, mark_greedy=True, generator=torch.Generator()
    )
    best = torch.tensor(1) if blocks is None else torch.tensor([1, 0, 1])
    action = act.act(torch.ones(1_000, 1))
    greedy = action == best if blocks is None else (action == best).all(dim=-1)
    assert torch.equal(act.last_greedy, greedy)
    assert 0.1 < greedy.float().mean() < 0.9
    written = act(TensorDict({"observation": torch.ones(7, 1)}, [7]))
    assert torch.equal(written["greedy"], act.last_greedy)
    assert written["greedy"].shape == (7,)
    act.epsilon, act.temperature = 0.0, 10.0
    assert not act.act(torch.ones(1_000, 1)).equal(best.expand(1_000, *best.shape))
    assert not act.last_greedy.all()
    with act.greedy():
        act.act(torch.ones(1_000, 1))
    assert act.last_greedy.all()


def test_nothing_is_marked_unless_asked_for():
    act = policy(epsilon=0.5)
    assert "greedy" not in act(TensorDict({"observation": torch.ones(7, 5)}, [7]))
    assert act.last_greedy is None


class Image(nn.Module):
    in_keys, out_features = ("pixels",), 4

    def __init__(self, convolution):
        super().__init__()
        self.convolution = convolution

    def forward(self, pixels):
        return self.convolution(pixels).mean(dim=(-1, -2))


@pytest.mark.parametrize("kind", ["ours", "parametrization"])
def test_power_iterations_are_made_in_learning_only(kind):
    convolution = SpectralConv2d(3, 4, 3) if kind == "ours" else spectral_norm(nn.Conv2d(3, 4, 3))
    network = QuantileNetwork(Image(convolution), 3, hidden_sizes=(5,))
    act, pixels = QuantilePolicy(network), torch.rand(2, 3, 6, 6)
    with torch.no_grad():
        weight = convolution.weight if kind == "ours" else convolution.parametrizations.weight.original
        weight.mul_(torch.rand(1, 3, 1, 1))  # the vectors do not fit any more

    def vectors():
        return [buffer.clone() for buffer in network.buffers()]

    before = vectors()
    act.act(pixels)
    act(TensorDict({"pixels": pixels}, [2]))
    with act.greedy():
        act.act(pixels)
    assert all(map(torch.equal, vectors(), before))
    assert all(module.training for module in network.modules())
    network(pixels, taus=torch.rand(2, 8))
    assert not all(map(torch.equal, vectors(), before))
