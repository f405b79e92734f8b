"""Loss and policy on a GPU, where there is one."""

import pytest
import torch

from tesserl_iqn import QuantilePolicy

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("munchausen_alpha", [None, 0.9])
def test_the_loss_moves_and_trains_with_its_ties(make_loss, make_batch, munchausen_alpha):
    loss = make_loss(munchausen_alpha=munchausen_alpha).to("cuda")
    batch = make_batch(6).to("cuda")
    loss(batch)["loss"].backward()
    assert batch["td_error"].device.type == "cuda"
    assert all(parameter.grad.isfinite().all() for parameter in loss.value_network.parameters())
    for network, params in (
        (loss.value_network, loss.value_network_params),
        (loss.target_value_network, loss.target_value_network_params),
    ):
        for name, parameter in network.named_parameters():
            assert parameter.device.type == "cuda"
            assert params[tuple(name.split("."))].data_ptr() == parameter.data_ptr()


def test_the_policy_draws_on_its_own_device(make_loss):
    network = make_loss().to("cuda").value_network
    observation = torch.randn(64, 5, device="cuda")
    policy = QuantilePolicy(network, epsilon=0.5, temperature=0.1, generator=torch.Generator("cuda"))
    actions = []
    for _ in range(2):
        policy.generator.manual_seed(1)
        actions.append(policy.act(observation))
    assert actions[0].device.type == "cuda"
    assert torch.equal(*actions)
