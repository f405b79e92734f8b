"""The quantile loss and its policy together with windows and prioritised replay: two packages that share keys."""

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.objectives import HardUpdate

from tesserl_iqn import IQNLoss, QuantileNetwork, QuantilePolicy
from tesserl_nn_components import VectorEncoder
from tesserl_replay import NStepWindow, PrioritizedSampler


def build(**options):
    network = QuantileNetwork(VectorEncoder(5, hidden_sizes=[7]), 3, hidden_sizes=(11,))
    loss = IQNLoss(network, **options)
    HardUpdate(loss, value_network_update_interval=100)
    return loss


def rollout(policy, num_envs, num_steps, **ends):
    """Random observations, the policy's actions, reward 1; ``ends`` says after which steps episodes end."""
    observation = torch.randn(num_envs, num_steps + 1, 5)
    batch = policy(TensorDict({"observation": observation[:, :-1]}, [num_envs, num_steps]))
    flags = {name: torch.zeros(num_envs, num_steps, 1, dtype=torch.bool) for name in ("terminated", "truncated")}
    for name, step in ends.items():
        flags[name][:, step] = True
    following = {"observation": observation[:, 1:], "reward": torch.ones(num_envs, num_steps, 1), **flags}
    return batch.set("next", {**following, "done": flags["terminated"] | flags["truncated"]})


@pytest.mark.parametrize(("end", "expected"), [("truncated", [3.5, 5.0]), ("terminated", [1.5, 1.0])])
def test_a_target_is_the_window_and_its_own_discount_of_what_follows(end, expected):
    """Windows of 3 steps over an episode of 2, discount 0.5; the target network says 8, the online network 0."""
    loss = build(discount=0.5)
    batch = NStepWindow(3, 0.5).extend(rollout(QuantilePolicy(loss.value_network), 1, 4, **{end: 1}))
    with torch.no_grad():
        for network, value in ((loss.value_network, 0.0), (loss.target_value_network, 8.0)):
            for parameter in network.parameters():
                parameter.zero_()
            network.head.layers[-1].bias.fill_(value)
    loss(batch)
    assert batch["td_error"].tolist() == expected


def test_prioritised_replay_weighs_the_loss_and_takes_its_errors():
    loss = build()
    sampler = PrioritizedSampler(1000, alpha=1.0, beta=1.0, eps=0.0)
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(1000), sampler=sampler, batch_size=20, priority_key="td_error"
    )
    batch = rollout(QuantilePolicy(loss.value_network), 4, 10, terminated=6)
    buffer.extend(NStepWindow(1, 0.9).extend(batch))
    for _ in range(10):
        sample = buffer.sample()
        loss(sample)
        buffer.update_tensordict_priority(sample)
    priorities = sampler.state_dict()["priorities"].float()
    last = dict(zip(sample["index"].tolist(), sample["td_error"], strict=True))  # of an item drawn twice, the last
    torch.testing.assert_close(priorities[list(last)], torch.stack(list(last.values())))

    sample = buffer.sample()
    state = torch.get_rng_state()
    weighted = loss(sample)["loss"]
    torch.set_rng_state(state)
    plain = loss(sample.exclude("priority_weight"))["loss"]
    assert weighted < plain  # weights are at most 1, and not all of them 1


def test_windows_end_before_the_actions_that_the_policy_does_not_mark_as_greedy():
    policy = QuantilePolicy(build().value_network, epsilon=0.5, mark_greedy=True)
    batch = rollout(policy, 4, 40)
    whole = NStepWindow(4, 0.9).extend(batch)["steps_to_next_obs"].view(-1, 4)
    cut = NStepWindow(4, 0.9, cut_at_exploration=True).extend(batch)["steps_to_next_obs"].view(-1, 4)
    greedy = batch["greedy"]
    for start in range(len(cut)):
        for env in range(4):
            later = greedy[env, start + 1 : start + 4].tolist()
            assert cut[start, env] == (1 + later.index(False) if False in later else 4)
    assert (whole == 4).all()
    assert (cut < whole).any()
