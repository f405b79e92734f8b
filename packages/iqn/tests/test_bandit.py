"""A two-armed bandit, end to end: the quantiles are learned, and risk decides between the arms."""

import pytest
import torch
from tensordict import TensorDict
from torchrl.objectives import HardUpdate

from tesserl_iqn import IQNLoss, QuantileNetwork, QuantilePolicy
from tesserl_nn_components import VectorEncoder

SAFE, RISKY = (0.5, 1.5), (-1.0, 4.0)  # both uniform: means 1 and 1.5, means of the worst tenth 0.55 and -0.75


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    network = QuantileNetwork(VectorEncoder(1, hidden_sizes=[32]), 2, hidden_sizes=(32,), num_cosines=8)
    # kappa 0: with kappa 1, errors below 1 are squared and the solution lies between quantiles and expectiles
    loss = IQNLoss(network, num_taus=16, num_target_taus=1, num_policy_taus=1, kappa=0.0)
    HardUpdate(loss)  # nothing bootstraps here: it only silences torchrl's warning that nobody updates
    num_updates, batch_size = 400, 256
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, num_updates)
    low, high = torch.tensor([SAFE, RISKY]).T
    state = torch.ones(batch_size, 1)
    for _ in range(num_updates):
        action = torch.randint(0, 2, (batch_size,))
        reward = low[action] + (high - low)[action] * torch.rand(batch_size)
        following = {"observation": state, "reward": reward.unsqueeze(-1), "terminated": torch.ones(batch_size, 1) > 0}
        loss(TensorDict({"observation": state, "action": action, "next": following}, [batch_size]))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return network


def test_the_learned_quantiles_are_those_of_the_arms(network):
    taus = torch.linspace(0.05, 0.95, 19)
    with torch.no_grad():
        learned = network(torch.ones(1, 1), taus)[0]
    true = torch.stack([low + (high - low) * taus for low, high in (SAFE, RISKY)], dim=-1)
    torch.testing.assert_close(learned, true, rtol=0, atol=0.15)


@pytest.mark.parametrize(("risk", "arm"), [(None, 1), (("cvar", 0.1), 0), (("wang", -0.75), 0), (("wang", 0.75), 1)])
def test_the_averse_take_the_safe_arm_and_the_neutral_the_better_one(network, risk, arm):
    policy = QuantilePolicy(network, risk=risk, num_taus=64, generator=torch.Generator().manual_seed(2))
    assert (policy.act(torch.ones(50, 1)) == arm).all()
