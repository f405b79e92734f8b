"""Mistakes of a caller are named, with what was expected and what to do; none of them is an error of torch."""

import pytest
import torch
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributions import Categorical
from torchrl.modules import ProbabilisticActor

from tesserl_preference_opt import BehaviorCloningLoss, CPLLoss, KTOLoss, PreferenceLoss

LOSSES = [PreferenceLoss, CPLLoss, KTOLoss, BehaviorCloningLoss]


class Output:
    """Output object like those of other libraries' networks."""

    def __init__(self, logits):
        self.logits = logits


class Direct(nn.Module):
    in_keys = ("observation",)

    def __init__(self, wrap):
        super().__init__()
        self.layer, self.wrap = nn.Linear(5, 3), wrap

    def forward(self, observation):
        return self.wrap(self.layer(observation))

    def policy_parameters(self, observation):
        return self(observation)

    def distribution(self, logits):
        return Categorical(logits=logits)


def actor(module):
    return ProbabilisticActor(
        TensorDictModule(module, ["observation"], ["logits"]),
        in_keys=["logits"],
        distribution_class=Categorical,
        return_log_prob=True,
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_a_policy_without_parameters_is_refused(loss):
    with pytest.raises(TypeError, match=r"must be an nn.Module with parameters to train, got one without any \(Prob"):
        loss(actor(lambda observation: observation[..., :3]))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("action", [torch.tensor(0.5), torch.tensor(3), torch.tensor(-1)])
def test_actions_that_the_policy_does_not_have_are_named(loss, action, make_actor, make_batch):
    batch = make_batch(kind="categorical")
    for side in ("chosen", "rejected"):  # floats of one side alone would be converted with those of the other
        batch[side, "action"] = action.expand(batch[side, "action"].shape).clone()
    with pytest.raises((TypeError, ValueError), match=r"actions must be what the policy's \w+ draws, got|support"):
        loss(make_actor("categorical"))(batch)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_dict_is_no_batch(loss, make_actor, make_batch):
    batch = make_batch(kind="categorical")
    with pytest.raises(TypeError, match=r"a batch must be a TensorDict, got a dict, .*; give TensorDict\(batch"):
        loss(make_actor("categorical"))({side: dict(batch[side].items()) for side in ("chosen", "rejected")})


def test_an_output_that_is_an_object_is_named(make_batch):
    batch = make_batch(kind="categorical")
    with pytest.raises(TypeError, match=r"policy_parameters of Direct must return .*, got Output; .* output.logits"):
        PreferenceLoss(Direct(Output))(batch)
    with pytest.raises(TypeError, match=r"modules of actor_network must write tensors, got logits: \w+; return the"):
        PreferenceLoss(actor(Direct(Output)))(batch)


@pytest.mark.parametrize("wrap", [lambda logits: logits, lambda logits: (logits,), lambda logits: [logits]])
def test_a_tensor_or_a_sequence_of_them_is_taken(wrap, make_batch):
    assert PreferenceLoss(Direct(wrap))(make_batch(kind="categorical"))["loss"].isfinite()


def test_segments_that_do_not_fit_each_other_are_named(make_actor, make_batch):
    batch = make_batch(kind="categorical")
    batch["chosen", "observation"] = batch["chosen", "observation"][..., :4]
    with pytest.raises(
        ValueError, match=r"observation of a step must have one shape in chosen and rejected, got \[4\]"
    ):
        PreferenceLoss(make_actor("categorical"))(batch)
