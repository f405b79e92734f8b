"""A policy that forbids an action is a policy without it: the same losses and gradients."""

import pytest
import torch
from torch import nn
from torch.distributions import Categorical

from tesserl_policy import mask_actions
from tesserl_preference_opt import BehaviorCloningLoss, CPLLoss, PreferenceLoss

from .conftest import ACTIONS, FEATURES


class Masked(nn.Module):
    """A linear policy that reads which actions are allowed."""

    in_keys = ("observation", "action_mask")

    def __init__(self):
        super().__init__()
        self.network = nn.Linear(FEATURES, ACTIONS)

    def policy_parameters(self, observation, allowed):
        return mask_actions(self.network(observation), allowed)

    def distribution(self, logits):
        return Categorical(logits=logits, validate_args=False)


class Shorter(Masked):
    """The same policy without the last action."""

    in_keys = ("observation",)

    def policy_parameters(self, observation):
        return self.network(observation)[..., :-1]


@pytest.mark.parametrize(
    "make",
    [lambda policy: PreferenceLoss(policy, entropy_coef=0.1), CPLLoss, BehaviorCloningLoss],
    ids=["DPO", "CPL", "BC"],
)
def test_a_forbidden_action_is_as_if_it_were_not_there(make_batch, make):
    batch, results = make_batch(filling=float("nan")), []
    batch["label"] = torch.zeros(len(batch))
    for side in ("chosen", "rejected"):
        segments = batch[side]
        segments["action"] = segments["action"] % (ACTIONS - 1)
        segments["action_mask"] = segments["mask"].unsqueeze(-1) & (torch.arange(ACTIONS) < ACTIONS - 1)
    for kind in (Masked, Shorter):
        torch.manual_seed(0)
        loss = make(kind())
        losses = loss(batch)
        losses["loss"].backward()
        results.append((losses.detach().to_dict(), [parameter.grad for parameter in loss.parameters()]))
    torch.testing.assert_close(results[0], results[1])
