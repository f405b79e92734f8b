"""Networks that read which actions are allowed, and the losses around them."""

import math

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torchrl.objectives import ClipPPOLoss

from tesserl_actor_critic import ActorCritic, PPOLoss
from tesserl_nn_components import RecurrentBody, VectorEncoder


class Nvec:
    def __init__(self, *nvec):
        self.nvec, self.shape = nvec, (len(nvec),)


SPACES = {"single": (4, (4,)), "blocks": (Nvec(3, 3), (2, 3)), "choices": (Nvec(2, 4), (6,))}


def network_of(space, **options):
    torch.manual_seed(0)
    return ActorCritic(VectorEncoder(5, hidden_sizes=[7]), action_space=space, orthogonal=False, masked=True, **options)


def masks(*shape):
    """Masks of which each choice allows its first option, and others at random."""
    mask = torch.rand(*shape) < 0.5
    mask[..., 0] = True
    if shape[-1] == 6:
        mask[..., 2] = True
    return mask


@pytest.mark.parametrize("name", SPACES)
def test_no_forbidden_action_is_drawn_and_the_loss_learns_from_allowed_ones(name):
    space, shape = SPACES[name]
    network, mask, observation = network_of(space), masks(64, *shape), torch.randn(64, 5)
    assert network.in_keys == ["observation", "action_mask"]
    *parameters, value = network(observation, mask)
    policy = network.distribution(*parameters)
    for action in (policy.sample(), policy.mode, network.greedy(observation, mask), network.act(observation, mask)):
        assert policy.log_prob(action).min() > -100
    batch = {"observation": observation, "action_mask": mask, "action": action, "advantage": torch.randn(64, 1)}
    batch |= {"action_log_prob": policy.log_prob(action).detach(), "value_target": torch.zeros(64, 1)}
    data = TensorDict({**batch, "state_value": value.detach()}, [64])
    of_torchrl = ClipPPOLoss(network.actor, network.critic, critic_coeff=0.25, entropy_coeff=0.01)
    for loss in (PPOLoss(network), PPOLoss(network.actor, network.critic), of_torchrl):
        network.zero_grad()
        losses = loss(data.clone())
        total = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
        total.sum().backward()
        assert 0 < float(losses["entropy"]) < 2 * math.log(4)
        assert all(parameter.grad.isfinite().all() for parameter in network.parameters() if parameter.grad is not None)
        assert any(parameter.grad.abs().sum() > 0 for parameter in network.policy.parameters())


def test_masked_log_probabilities_are_those_of_the_allowed_actions():
    network = network_of(3, policy_head=nn.Linear(7, 3))
    network.policy.weight.data.zero_()
    network.policy.bias.data = torch.tensor([0.0, 5.0, math.log(3)])
    (logits,) = network.policy_parameters(torch.randn(1, 5), torch.tensor([[True, False, True]]))
    policy = network.distribution(logits)
    assert policy.log_policy.exp()[0].tolist() == pytest.approx([0.25, 0.0, 0.75])
    assert float(policy.entropy().detach()) == pytest.approx(0.25 * math.log(4) + 0.75 * math.log(4 / 3))


def test_a_recurrent_network_masks_sequences_as_it_masks_steps():
    body = RecurrentBody(VectorEncoder(5, hidden_sizes=[7]), hidden_size=6, kind="gru")
    network = ActorCritic(body, action_space=4, masked=True)
    assert network.in_keys[:3] == ["observation", "action_mask", "is_init"]
    observation, mask, is_init = torch.randn(2, 3, 5), masks(2, 3, 4), torch.zeros(2, 3, 1, dtype=torch.bool)
    (state,) = body.initial_state(2)
    logits, value = network(observation, mask, is_init, state)
    for t in range(3):
        step, one_value, state = network.forward_recurrent(observation[:, t], mask[:, t], is_init[:, t], state)
        torch.testing.assert_close((logits[:, t], value[:, t]), (step, one_value))


def test_masks_of_continuous_actions_are_refused():
    class Box:
        shape, low, high = (1,), -torch.ones(1), torch.ones(1)

    with pytest.raises(ValueError, match=r"masked needs discrete actions, got .*; leave masked out"):
        network_of(Box())
