"""A policy that forbids an action is a policy without it: the same losses, metrics and gradients."""

import pytest
import torch
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributions import Categorical
from torchrl.modules import ProbabilisticActor

from tesserl_grpo import GRPOLoss
from tesserl_policy import ReferencePolicy, mask_actions

from .conftest import ACTIONS, FEATURES


class Masked(nn.Module):
    """A linear policy that reads which actions are allowed."""

    in_keys = ("observation", "action_mask")

    def __init__(self):
        super().__init__()
        self.network = nn.Linear(FEATURES, ACTIONS)

    def logits(self, observation, allowed):
        return mask_actions(self.network(observation), allowed)

    policy_parameters = logits

    def distribution(self, logits):
        return Categorical(logits=logits, validate_args=False)


class Shorter(Masked):
    """The same policy without the last action."""

    in_keys = ("observation",)

    def logits(self, observation):
        return self.network(observation)[..., :-1]

    policy_parameters = logits


class Reading(nn.Module):
    """The logits of a policy as a module."""

    def __init__(self, policy):
        super().__init__()
        self.policy = policy

    def forward(self, *inputs):
        return self.policy.logits(*inputs)


def of_torchrl(policy):
    """The same policy as torchrl knows it."""
    module = TensorDictModule(Reading(policy), list(policy.in_keys), ["logits"])
    return ProbabilisticActor(module, in_keys=["logits"], distribution_class=Categorical, return_log_prob=True)


@pytest.mark.parametrize("wrap", [lambda policy: policy, of_torchrl])
@pytest.mark.parametrize("options", [{"kl_kind": "exact"}, {"kl_kind": "k3", "top_entropy_fraction": 0.5}])
def test_a_forbidden_action_is_as_if_it_were_not_there(make_batch, wrap, options):
    batch, results = make_batch(padding=float("nan")), []
    del batch["reference_log_prob"]
    batch["action"] = batch["action"] % (ACTIONS - 1)
    batch["action_mask"] = batch["mask"].unsqueeze(-1) & (torch.arange(ACTIONS) < ACTIONS - 1)  # none in the padding
    for kind in (Masked, Shorter):
        torch.manual_seed(0)
        policy, other = wrap(kind()), wrap(kind())
        loss = GRPOLoss(policy, reference=ReferencePolicy(other), kl_coef=0.3, entropy_coef=0.1, **options)
        losses = loss(batch)
        sum(value for key, value in losses.items() if key.startswith("loss")).backward()
        results.append((losses.detach().to_dict(), [parameter.grad for parameter in policy.parameters()]))
    torch.testing.assert_close(results[0], results[1])
