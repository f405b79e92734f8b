"""A body with memory: steps and sequences, the loss on whole sequences, and the faces in torchrl."""

import pytest
import torch
from tensordict import TensorDict
from torchrl.objectives import ClipPPOLoss

from tesserl_actor_critic import ActorCritic, PPOLoss
from tesserl_nn_components import RecurrentBody, VectorEncoder

from .conftest import FEATURES, gradients, total

NUM_ENVS, LENGTH, LAYERS, WIDTH = 3, 11, 2, 7


@pytest.fixture(params=["gru", "lstm"])
def network(request):
    encoder = VectorEncoder(FEATURES, hidden_sizes=[9])
    body = RecurrentBody(encoder, WIDTH, kind=request.param, num_layers=LAYERS)
    return ActorCritic(body, action_space=4, orthogonal=False)


def episode_starts():
    is_init = torch.zeros(NUM_ENVS, LENGTH, 1, dtype=torch.bool)
    is_init[0, 4] = is_init[1, 0] = is_init[1, 7] = True
    return is_init


def collect(network, state=None):
    """Act step by step; the state of each step is the one before it."""
    observation, is_init = torch.randn(NUM_ENVS, LENGTH, FEATURES), episode_starts()
    state = state or [torch.randn(NUM_ENVS, LAYERS, WIDTH) for _ in network.state_keys]
    columns = []
    for t in range(LENGTH):
        with torch.no_grad():
            logits, value, *following = network.forward_recurrent(observation[:, t], is_init[:, t], *state)
            policy = network.distribution(logits)
            action = policy.sample()
        step = {"logits": logits, "state_value": value, "action": action, "action_log_prob": policy.log_prob(action)}
        columns.append(TensorDict({**step, **dict(zip(network.state_keys, state, strict=True))}, [NUM_ENVS]))
        state = following
    batch = torch.stack(columns, dim=1)
    batch.update({"observation": observation, "is_init": is_init})
    return batch.update({name: torch.randn(NUM_ENVS, LENGTH, 1) for name in ("advantage", "value_target")})


def test_keys_name_the_state(network):
    assert network.in_keys == ["observation", "is_init", *network.state_keys]
    assert network.state_keys[0] == ("recurrent", "h")
    assert network.out_keys == ["logits", "state_value"]


def test_a_sequence_is_its_steps(network):
    batch = collect(network)
    inputs = [batch[key] for key in network.in_keys]
    logits, value = network(*inputs)
    torch.testing.assert_close(logits, batch["logits"])
    torch.testing.assert_close(value, batch["state_value"])
    torch.testing.assert_close(network.policy_parameters(*inputs)[0], logits)
    torch.testing.assert_close(network.state_value(*inputs), value)
    first = [batch[key][:, 0] for key in network.state_keys]
    torch.testing.assert_close(network(*inputs[:2], *first)[0], logits)  # the state before the first step is enough
    assert network.act(*(each[:, 0] for each in inputs)).shape == (NUM_ENVS,)
    assert torch.equal(network.greedy(*inputs), logits.argmax(-1))


def test_the_loss_runs_whole_sequences(network):
    batch = collect(network)
    result = PPOLoss(network)(batch)
    assert result["max_ratio"].item() == pytest.approx(1.0, abs=1e-5)
    assert result["clip_fraction"].item() == 0.0
    changed = batch.clone()
    for key in network.state_keys:
        changed[key][:, 1:] = torch.nan
    torch.testing.assert_close(total(PPOLoss(network)(changed)), total(result))  # the others are never looked at
    for key in network.state_keys:
        changed[key][:, 0] += 1
    assert not torch.isclose(total(PPOLoss(network)(changed)), total(result))


def test_gradient_goes_back_through_time_and_stops_where_an_episode_starts(network):
    batch = collect(network)
    observation = batch["observation"].requires_grad_()
    inputs = [observation, batch["is_init"], *(batch[key] for key in network.state_keys)]
    _, value = network(*inputs)
    value[0, -1].sum().backward()
    reached = observation.grad.abs().sum(-1) > 0
    assert reached[0].tolist() == [t >= 4 for t in range(LENGTH)]
    assert not reached[1:].any()


@pytest.mark.parametrize("reference", [False, True])
def test_the_loss_is_torchrls_and_that_of_the_faces(network, reference):
    batch = collect(network)
    batch["action_log_prob"] += 0.3 * torch.randn(NUM_ENVS, LENGTH)
    loss = PPOLoss(network, normalize_advantage=False)
    expected = gradients(loss, loss(batch))
    if reference:
        other = ClipPPOLoss(network.actor, network.critic, critic_coeff=0.25, loss_critic_type="l2")
    else:
        critic = network.critic
        del critic.__dict__["actor_critic"]
        other = PPOLoss(network.actor, critic, normalize_advantage=False)
    network.zero_grad()
    total(other(batch)).backward()
    for name, parameter in loss.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)


def test_padding_at_the_end_moves_nothing(network):
    batch, loss = collect(network), PPOLoss(network)
    short = loss(batch[:, :-3])
    expected = gradients(loss, short)
    for key in ("observation", "action_log_prob", "advantage", "value_target"):
        batch[key][:, -3:] = torch.nan
    batch["mask"] = torch.ones(NUM_ENVS, LENGTH, dtype=torch.bool)
    batch["mask"][:, -3:] = False
    padded = loss(batch)
    for name, value in short.items():
        torch.testing.assert_close(padded[name], value)
    for name, gradient in gradients(loss, padded).items():
        torch.testing.assert_close(gradient, expected[name])


def test_steps_before_an_episode_starts_may_be_masked(network):
    batch, loss = collect(network), PPOLoss(network)
    batch["is_init"][:, 5] = True
    batch["mask"] = torch.ones(NUM_ENVS, LENGTH, dtype=torch.bool)
    batch["mask"][:, 4] = False
    before = loss(batch)
    batch["observation"][:, 4] = torch.nan
    after = loss(batch)
    assert total(after).isfinite()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value)


def test_the_actor_hands_the_state_on(network):
    batch = collect(network)[:, 5]
    new = network.actor(batch.clone())
    *_, first = network.forward_recurrent(*(batch[key] for key in network.in_keys))
    torch.testing.assert_close(new[("next", *network.state_keys[-1])], first)
    assert network.critic(batch.clone())["state_value"].shape == (NUM_ENVS, 1)
