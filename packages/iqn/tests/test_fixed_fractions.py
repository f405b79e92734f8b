"""QR-DQN (arXiv:1710.10044): a network, a loss and a policy whose fractions are fixed midpoints."""

import json
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from tesserl_iqn import IQNLoss, QuantileNetwork, QuantilePolicy, quantile_huber_loss
from tesserl_iqn.fractions import sample_taus
from tesserl_nn_components import VectorEncoder

MIDPOINTS = json.loads((Path(__file__).parent / "vectors" / "qr_fqf_noisy.json").read_text())["qr_tau_hat"]


def network(num=4, **options):
    body = VectorEncoder(5, hidden_sizes=[7])
    return QuantileNetwork(body, 3, num_fixed_quantiles=num, **{"hidden_sizes": (11,), **options})


class Atoms(nn.Module):
    """A head whose quantiles of two actions are given numbers, plus the first feature."""

    def __init__(self, atoms):
        super().__init__()
        self.atoms = nn.Parameter(torch.tensor(atoms))

    def forward(self, features):
        return features[..., :1, None] + self.atoms


def atoms_network(atoms=((0.0, 4.0), (1.0, 4.0), (2.0, 4.0), (13.0, 4.0))):
    body = VectorEncoder(2, hidden_sizes=[])
    return QuantileNetwork(body, 2, num_fixed_quantiles=len(atoms), head=Atoms(atoms))


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize(("num_blocks", "tail"), [(None, (3,)), (2, (2, 3))])
@pytest.mark.parametrize("hidden_sizes", [(), (11,)])
def test_the_head_gives_a_value_for_each_fraction_block_and_action(dueling, num_blocks, tail, hidden_sizes):
    net = network(dueling=dueling, num_blocks=num_blocks, hidden_sizes=hidden_sizes)
    for batch in [(), (6,), (6, 2)]:
        observation = torch.randn(*batch, 5)
        assert net(observation).shape == (*batch, 4, *tail)
        assert net(observation, taus=torch.rand(*batch, 9)).shape == (*batch, 9, *tail)
    assert not any("embedding" in name for name in net.state_dict())


def test_a_linear_head_lists_the_actions_of_each_quantile_together():
    net = network(hidden_sizes=())
    features = net.features(torch.randn(6, 5))
    weight, bias = (net.head.advantage.state_dict()[f"layers.0.{name}"] for name in ("weight", "bias"))
    torch.testing.assert_close(net.quantiles(features), (features @ weight.T + bias).view(6, 4, 3))


def test_dueling_subtracts_the_mean_advantage_of_each_quantile_and_block():
    net = network(dueling=True, num_blocks=2)
    features = net.features(torch.randn(6, 5))
    torch.testing.assert_close(net.quantiles(features).mean(dim=-1).flatten(1), net.head.value(features))


def test_a_fraction_has_the_quantile_of_its_segment():
    net, observation = atoms_network(), torch.zeros(3, 2)
    row = torch.tensor([0.0, 0.2, 0.25, 0.6, 0.99, 1.0])
    expected = torch.tensor([0.0, 0.0, 1.0, 2.0, 13.0, 13.0]).expand(3, 6)
    torch.testing.assert_close(net(observation, taus=row)[..., 0], expected)
    torch.testing.assert_close(net(observation, taus=row.expand(3, 6))[..., 0], expected)


@pytest.mark.parametrize("num", [1, 2, 5, 200])
@pytest.mark.parametrize("num_blocks", [None, 2])
def test_at_its_midpoints_a_network_gives_all_of_its_quantiles_in_order(num, num_blocks):
    net, observation = network(num, num_blocks=num_blocks), torch.randn(6, 5)
    row = sample_taus((), num, kind="midpoints")
    if str(num) in MIDPOINTS:
        torch.testing.assert_close(row, torch.tensor(MIDPOINTS[str(num)]))
    for taus in (row, row.expand(6, -1)):
        assert torch.equal(net(observation, taus=taus), net(observation))


def transition():
    following = {
        "observation": torch.tensor([[10.0, 0.0]]),
        "reward": torch.tensor([[1.0]]),
        "terminated": torch.tensor([[False]]),
    }
    return TensorDict({"observation": torch.zeros(1, 2), "action": torch.tensor([1]), "next": following}, [1])


@pytest.mark.parametrize("double", [True, False])
def test_the_loss_is_the_hand_computed_number(make_loss, double):
    batch = transition()
    loss = make_loss(atoms_network(((0.0, 4.0), (12.0, 4.5))), discount=0.5, double=double)(batch)["loss"]
    # next: means 16 and 14.25, action 0: quantiles 10, 22: targets 6, 12; predicted 4, 4.5 at fractions .25, .75
    # .25 * (1.5 + 7.5) / 2 + .75 * (1 + 7) / 2
    torch.testing.assert_close(loss, torch.tensor(1.125 + 3.0))
    torch.testing.assert_close(batch["td_error"], torch.tensor([(2 + 8 + 1.5 + 7.5) / 4]))


@pytest.mark.parametrize("options", [{}, {"double": False}, {"munchausen_alpha": 0.9}])
@pytest.mark.parametrize("num_blocks", [None, 2])
def test_the_loss_draws_no_fractions_and_trains_every_parameter(make_loss, make_batch, options, num_blocks):
    loss = make_loss(network(dueling=True, num_blocks=num_blocks), num_blocks=num_blocks, **options)
    batch, state = make_batch(40, num_blocks=num_blocks), torch.get_rng_state()
    first = loss(batch)["loss"]
    first.backward()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(loss(batch)["loss"], first)
    assert all(parameter.grad.abs().sum() > 0 for parameter in loss.parameters())


@pytest.mark.parametrize("log_policy", ["target", "online"])
def test_munchausen_takes_the_means_over_all_quantiles(make_loss, log_policy):
    net = atoms_network()
    options = {"munchausen_alpha": 0.9, "munchausen_log_policy": log_policy, "discount": 0.5}
    loss, batch = make_loss(net, **options), transition()
    # both actions are worth 4 now and 14 next: log pi = -log 2; only the quantiles of the two differ
    entropy = 0.03 * torch.tensor(2.0).log()
    quantiles = 0.5 * (torch.tensor([10.0, 11.0, 12.0, 23.0]) + 14.0) + entropy
    targets = 1 - 0.9 * entropy + 0.5 * quantiles
    taus = torch.tensor([0.125, 0.375, 0.625, 0.875])
    expected = quantile_huber_loss(torch.full((1, 4), 4.0), taus[None], targets[None])
    torch.testing.assert_close(loss(batch)["loss"], expected.squeeze(0))


def test_the_policy_takes_the_mean_over_all_quantiles_and_distorts_risk_exactly():
    net, observation = atoms_network(), torch.zeros(3, 2)
    policy, state = QuantilePolicy(net), torch.get_rng_state()
    torch.testing.assert_close(policy.action_value(observation), torch.tensor([[4.0, 4.0]]).expand(3, 2))
    averse = QuantilePolicy(net, risk=("cvar", 0.5))  # the mean of the worse half: of 0 and 1
    torch.testing.assert_close(averse.action_value(observation), torch.tensor([[0.5, 4.0]]).expand(3, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert averse.act(observation).tolist() == [1, 1, 1]


def test_the_tensordict_module_reads_no_taus(make_batch):
    net = network()
    assert net.in_keys == ["observation"]
    module, batch = net.as_tensordict_module(), make_batch(6)
    assert module(batch.clone())["quantile_values"].shape == (6, 4, 3)
    loss, policy = IQNLoss(module), QuantilePolicy(module)
    assert loss.in_keys[0] == "observation"
    assert policy.in_keys == ["observation"]
    assert policy(batch)["action_value"].shape == (6, 3)


def test_it_learns_the_quantiles_of_a_bandit(make_loss):
    net = QuantileNetwork(VectorEncoder(1, hidden_sizes=[]), 1, num_fixed_quantiles=5, hidden_sizes=())
    loss = make_loss(net, kappa=0.0)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.02)
    generator = torch.Generator().manual_seed(1)
    for _ in range(250):
        following = {
            "observation": torch.zeros(256, 1),
            "reward": 2 * torch.rand(256, 1, generator=generator),
            "terminated": torch.ones(256, 1, dtype=torch.bool),
        }
        entries = {"observation": torch.zeros(256, 1), "action": torch.zeros(256, dtype=torch.int64)}
        loss(TensorDict({**entries, "next": following}, [256]))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    learned = net(torch.zeros(1)).squeeze(-1)
    torch.testing.assert_close(learned, 2 * torch.tensor(MIDPOINTS["5"]), rtol=0, atol=0.12)


def test_compiles_without_a_graph_break(make_loss, make_batch):
    loss, batch = make_loss(network(60, dueling=True)), make_batch(6)
    compiled = torch.compile(lambda tensordict: loss(tensordict)["loss"], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(batch.clone()), loss(batch)["loss"])


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="num_fixed_quantiles must be at least 1, got 0"):
        network(0)
    with pytest.raises(ValueError, match="taus must be given, got None; only a network with num_fixed_quantiles"):
        QuantileNetwork(VectorEncoder(5, hidden_sizes=[7]), 3).quantiles(torch.randn(4, 7))
