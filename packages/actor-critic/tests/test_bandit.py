"""Small tasks, end to end: the better action is learned."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from tesserl_actor_critic import ActorCritic, PPOLoss, generalized_advantage_estimate
from tesserl_nn_components import VectorEncoder

from .conftest import BLOCKS, BOX, MULTI, total

# what to do in the two states: rewards fall with the distance of the action from it
WANTED = {
    "categorical": torch.tensor([3, 1]),
    "blocks": torch.tensor([[0, 2], [1, 1]]),
    "multi-discrete": torch.tensor([[2, 0], [0, 3]]),
    "normal": torch.tensor([[0.5, -1.0, 2.0], [-0.5, 1.0, 3.0]]),
    "tanh-normal": torch.tensor([[0.5, -1.0, 2.0], [-0.5, 1.0, 3.0]]),
}
SPACES = {"categorical": 4, "blocks": BLOCKS, "multi-discrete": MULTI, "normal": BOX, "tanh-normal": BOX}


@pytest.mark.parametrize("kind", WANTED)
def test_ppo_finds_what_each_state_wants(kind):
    torch.manual_seed(1)
    body = VectorEncoder(2, hidden_sizes=[32], activation=nn.Tanh)
    distribution = "tanh_normal" if kind == "tanh-normal" else "normal"
    network = ActorCritic(body, action_space=SPACES[kind], distribution=distribution)
    loss = PPOLoss(network, entropy_coef=0.0)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
    observation = torch.eye(2).repeat(32, 1)
    wanted = WANTED[kind].repeat(32, *[1] * (WANTED[kind].dim() - 1))
    for _ in range(100):
        with torch.no_grad():
            *parameters, value = network(observation)
            policy = network.distribution(*parameters)
            action = policy.sample()
        miss = (action - wanted).abs().float()
        reward = -(miss.clamp(max=1) if not action.is_floating_point() else miss)
        reward = reward if reward.dim() == 1 else reward.mean(-1)
        ends = torch.ones(64, 1, dtype=torch.bool)
        advantage, target = generalized_advantage_estimate(
            reward.unsqueeze(-1), value, value, ends, ~ends, discount=0.99, gae_lambda=0.95
        )
        batch = {"observation": observation, "action": action, "action_log_prob": policy.log_prob(action)}
        batch = TensorDict({**batch, "advantage": advantage, "value_target": target}, [64])
        for _ in range(4):
            optimizer.zero_grad()
            total(loss(batch)).backward()
            optimizer.step()
    chosen = network.greedy(torch.eye(2))
    torch.testing.assert_close(chosen, WANTED[kind], rtol=0, atol=0.4 if chosen.is_floating_point() else 0)
