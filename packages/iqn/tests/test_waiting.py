"""An update never waits for its device: nothing it does needs a tensor's value on the host."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tesserl_iqn import QuantileNetwork, QuantilePolicy
from tesserl_nn_components import ImpalaCNN, VectorEncoder

# item() and bool(), comparisons that answer on the host, and shapes that depend on values
WAITING = ("_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "unique", "repeat_interleave")


class Waited(RuntimeError):
    """An operation asked for a value."""


class NoWaiting(TorchDispatchMode):
    """Refuses what copies a value from a GPU to the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            isinstance(leaf, torch.Tensor) and leaf.dtype == torch.bool for leaf in tree_leaves(args[1:2])
        )
        if by_mask or name.strip("_") in {each.strip("_") for each in WAITING}:
            raise Waited(name)
        return func(*args, **(kwargs or {}))


def update(loss, batch):
    parameters = list(loss.parameters())
    loss(batch)["loss"].backward()
    torch.nn.utils.clip_grad_norm_(parameters, 10.0)


@pytest.mark.parametrize("ask", [lambda t: t.sum().item(), lambda t: bool(t.sum()), lambda t: t[t > 0], torch.nonzero])
def test_what_waits_is_noticed(ask):
    with pytest.raises(Waited), NoWaiting():
        ask(torch.randn(3))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"double": False, "num_taus": 60, "num_target_taus": 60},
        {"munchausen_alpha": 0.9},
        {"munchausen_alpha": 0.9, "munchausen_log_policy": "online", "self_loss_clamp_ratio": 4.0},
        {"tau_sampling": "antithetic", "kappa": 0.0, "reduction": "sum"},
    ],
)
def test_an_update_does_not_wait(make_loss, make_batch, options):
    loss, batch = make_loss(**options), make_batch(6)
    batch["priority_weight"] = torch.rand(6)
    batch["steps_to_next_obs"] = torch.full((6, 1), 3)
    batch["collector", "mask"] = torch.arange(6) != 2
    with NoWaiting():
        update(loss, batch)
    assert all(parameter.grad is not None for parameter in loss.parameters())


def test_an_update_of_fixed_fractions_does_not_wait(make_loss, make_batch):
    network = QuantileNetwork(VectorEncoder(5, hidden_sizes=[7]), 3, num_fixed_quantiles=60)
    with NoWaiting():
        update(make_loss(network), make_batch(6))


def test_images_power_iterations_and_acting_do_not_wait():
    body = ImpalaCNN((1, 8, 8), channels=[2], pool_size=2, spectral_norm="residual")
    policy = QuantilePolicy(QuantileNetwork(body, 3, hidden_sizes=(11,), dueling=True, noisy=True), epsilon=0.1)
    pixels = torch.randint(256, (6, 1, 8, 8), dtype=torch.uint8)
    with NoWaiting():
        policy.network(pixels, torch.rand(6, 5)).sum().backward()
        policy.act(pixels)
