"""Mistakes of a caller are named, with what was expected and what to do; none of them is an error of torch."""

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributions import Categorical
from torchrl.modules import ProbabilisticActor

from tesserl_actor_critic import ActorCritic, PPOLoss, generalized_advantage_estimate
from tesserl_actor_critic.distributions import MultiCategorical
from tesserl_nn_components import VectorEncoder


def network():
    return ActorCritic(VectorEncoder(5, hidden_sizes=[7]), action_space=3)


def batch():
    numbers = {name: torch.zeros(6, 1) for name in ("state_value", "advantage", "value_target")}
    steps = {"observation": torch.zeros(6, 5), "action": torch.zeros(6, dtype=torch.int64)}
    return TensorDict({**steps, **numbers, "action_log_prob": torch.zeros(6)}, [6])


WRONG = {
    "float action": (
        "action",
        torch.rand(6),
        TypeError,
        r"actions must be categories, int64, got torch.float32; convert",
    ),
    "action above": ("action", torch.full((6,), 3), ValueError, r"actions must be in \[0, 3\), got values from 3 to 3"),
    "action below": (
        "action",
        torch.full((6,), -1),
        ValueError,
        r"got values from -1 to -1; number the actions from 0",
    ),
    "width": (
        "observation",
        torch.zeros(6, 4),
        ValueError,
        r"observation must have the shape \[\*B, 5\], got \(6, 4\)",
    ),
}


@pytest.mark.parametrize(("key", "entry", "kind", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_entry_of_a_batch_is_named(key, entry, kind, message):
    with pytest.raises(kind, match=message):
        PPOLoss(network())(batch().set(key, entry))


def test_an_option_that_a_choice_does_not_have_is_named():
    with pytest.raises(ValueError, match=r"actions must be in \[0, 2\), got values from 2 to 2"):
        MultiCategorical(torch.zeros(1, 5), [3, 2]).log_prob(torch.tensor([[2, 2]]))


def test_a_dict_is_no_batch():
    with pytest.raises(TypeError, match=r"a batch must be a TensorDict, got a dict, .*; give TensorDict\(batch"):
        PPOLoss(network())(dict(batch().items()))


@pytest.mark.parametrize("method", ["forward", "act", "greedy", "policy_parameters", "state_value"])
def test_arrays_to_act_on_are_named(method):
    with pytest.raises(TypeError, match="observation must be a tensor, got ndarray; convert it with"):
        getattr(network(), method)(np.zeros((2, 5), np.float32))


def actor(module):
    return ProbabilisticActor(
        TensorDictModule(module, ["observation"], ["logits"]),
        in_keys=["logits"],
        distribution_class=Categorical,
        return_log_prob=True,
    )


def test_an_actor_without_parameters_is_refused():
    critic = TensorDictModule(nn.Linear(5, 1), ["observation"], ["state_value"])
    with pytest.raises(TypeError, match="actor_network must have parameters to train, got a module without any"):
        PPOLoss(actor(lambda observation: observation[..., :3]), critic)
    constant = TensorDictModule(lambda observation: observation[..., :1], ["observation"], ["state_value"])
    with pytest.raises(TypeError, match="critic_network must have parameters to train"):
        PPOLoss(actor(nn.Linear(5, 3)), constant)


def test_actions_that_another_distribution_refuses_are_named():
    critic = TensorDictModule(nn.Linear(5, 1), ["observation"], ["state_value"])
    loss = PPOLoss(actor(nn.Linear(5, 3)), critic)
    with pytest.raises(ValueError, match=r"action.* must be what the policy's Categorical draws|within the support"):
        loss(batch().set("action", torch.full((6,), 3)))


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        ("terminated", torch.zeros(2, 3), r"terminated must be bool, got torch.float32; convert it with .bool\(\)"),
        ("truncated", torch.zeros(2, 3), r"truncated must be bool"),
        ("reward", torch.zeros(2, 3, dtype=torch.int64), r"reward must be floating point, got torch.int64"),
    ],
)
def test_wrong_types_of_a_rollout_are_named(name, entry, message):
    flags = {flag: torch.zeros(2, 3, dtype=torch.bool) for flag in ("terminated", "truncated")}
    rollout = {**{key: torch.zeros(2, 3) for key in ("reward", "value", "next_value")}, **flags, name: entry}
    with pytest.raises(TypeError, match=message):
        generalized_advantage_estimate(**rollout, discount=0.9, gae_lambda=0.9)
