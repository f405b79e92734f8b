"""Loss and groups on a GPU, where there is one."""

import pytest
import torch

from tesserl_grpo import GRPOLoss, flatten_steps, group_advantages_to_go, step_weights
from tesserl_policy import ReferencePolicy

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_the_loss_moves_and_trains_with_its_reference(policy, make_batch):
    loss = GRPOLoss(policy, kl_coef=0.1, reference=ReferencePolicy(policy, interval=1)).to("cuda")
    batch = make_batch((4, 2, 3, 1), padding=float("nan")).exclude("reference_log_prob").to("cuda")
    expected = loss(batch)
    batch["step_weight"] = step_weights(batch["mask"])
    losses = loss(flatten_steps(batch))
    torch.testing.assert_close(losses, expected)
    losses["loss_objective"].backward()
    assert all(parameter.grad.isfinite().all() for parameter in policy.parameters())
    assert loss.reference.step(policy)


def test_advantages_to_go_are_those_of_the_processor():
    rewards, mask = torch.randn(6, 9), torch.arange(9) < torch.tensor([9, 3, 5, 1, 9, 2]).unsqueeze(-1)
    group = torch.tensor([1, 0, 1, 0, 0, 1])
    found = group_advantages_to_go(rewards.cuda(), mask.cuda(), group.cuda())
    torch.testing.assert_close(found.cpu(), group_advantages_to_go(rewards, mask, group))
