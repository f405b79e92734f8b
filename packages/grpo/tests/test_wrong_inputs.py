"""Mistakes of a caller are named, with what was expected and what to do; none of them is an error of torch."""

import pytest
import torch
from tensordict.nn import TensorDictModule
from torch.distributions import Categorical
from torchrl.modules import ProbabilisticActor

from tesserl_grpo import GRPOLoss


@pytest.mark.parametrize("face", ["direct", "torchrl"])
@pytest.mark.parametrize("action", [torch.rand(4, 4) + 0.1, torch.full((4, 4), 3), torch.full((4, 4), -1)])
def test_actions_that_the_policy_does_not_have_are_named(policy, as_actor, make_batch, face, action):
    loss = GRPOLoss(policy if face == "direct" else as_actor(policy))
    batch = make_batch((4, 4, 4, 4)).set("action", action)
    with pytest.raises(
        (TypeError, ValueError), match=r"actions must be what the policy's Categorical draws, got|support"
    ):
        loss(batch)


def test_a_dict_is_no_batch(policy, make_batch):
    with pytest.raises(TypeError, match=r"a batch must be a TensorDict, got a dict, .*; give TensorDict\(batch"):
        GRPOLoss(policy)(dict(make_batch().items()))


class Direct:
    in_keys = ("observation",)

    def policy_parameters(self, observation):
        return (observation[..., :3],)

    def distribution(self, logits):
        return Categorical(logits=logits)


def test_a_policy_without_parameters_is_refused():
    module = TensorDictModule(lambda observation: observation[..., :3], ["observation"], ["logits"])
    actor = ProbabilisticActor(module, in_keys=["logits"], distribution_class=Categorical, return_log_prob=True)
    for policy in (actor, Direct()):
        with pytest.raises(TypeError, match=r"must be an nn.Module with parameters to train, got one without any"):
            GRPOLoss(policy)
