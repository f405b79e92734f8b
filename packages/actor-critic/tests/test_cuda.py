"""Network, loss and advantages on a GPU, where there is one."""

import pytest
import torch

from tesserl_actor_critic import PPOLoss, generalized_advantage_estimate

from .conftest import FEATURES, gradients

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_the_loss_moves_with_its_network(make_network, make_batch, kind):
    network = make_network(kind)
    batch, loss = make_batch(network, 16), PPOLoss(network)
    expected = loss(batch)
    result = loss.to("cuda")(batch.to("cuda"))
    for key, value in expected.items():
        torch.testing.assert_close(result[key].cpu(), value, rtol=1e-4, atol=1e-5)
    assert all(gradient.device.type == "cuda" for gradient in gradients(loss, result).values())
    assert network.act(torch.randn(6, FEATURES, device="cuda")).device.type == "cuda"


def test_advantages_are_computed_where_the_rollout_is():
    columns = torch.randn(3, 4, 16, device="cuda")
    ends = torch.rand(2, 4, 16, device="cuda") < 0.1
    results = [
        generalized_advantage_estimate(*columns.to(device), *ends.to(device), discount=0.99, gae_lambda=0.95)
        for device in ("cuda", "cpu")
    ]
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine.cpu(), other, rtol=1e-4, atol=1e-5)
