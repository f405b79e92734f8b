"""Loss and policy on a GPU, where there is one."""

import pytest
import torch

from tesserl_iqn import QuantileNetwork, QuantilePolicy
from tesserl_iqn.quantile_loss import quantile_losses
from tesserl_nn_components import VectorEncoder

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


@pytest.mark.parametrize("num_fixed_quantiles", [None, 60])
def test_an_update_does_not_wait_for_the_device(make_loss, make_batch, num_fixed_quantiles):
    body = VectorEncoder(5, hidden_sizes=[7])
    network = QuantileNetwork(body, 3, hidden_sizes=(11,), noisy=True, num_fixed_quantiles=num_fixed_quantiles)
    loss = make_loss(network, munchausen_alpha=0.9, self_loss_clamp_ratio=4.0).to("cuda")
    optimizer, batch = torch.optim.Adam(loss.parameters()), make_batch(6).to("cuda")
    for mode in ("default", "error"):  # the first pass sets libraries up
        torch.cuda.set_sync_debug_mode(mode)
        try:
            loss(batch)["loss"].backward()
            torch.nn.utils.clip_grad_norm_(list(loss.parameters()), 10.0)
            optimizer.step()
            optimizer.zero_grad()
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("kappa", [0.0, 1.0])
def test_losses_over_pairs_are_those_of_the_host(kappa):
    tensors = torch.randn(3, 60), torch.rand(3, 60), torch.randn(3, 60)
    on_device = quantile_losses(*(tensor.cuda() for tensor in tensors), kappa=kappa)
    torch.testing.assert_close([loss.cpu() for loss in on_device], list(quantile_losses(*tensors, kappa=kappa)))
