"""Traps of published implementations of Beyond The Rainbow, as far as they lie in this package.

Numbers 3, 6 and parts of 1, 2, 4 and 9 are in `tesserl-replay`; 5 (one meaning of the replay ratio) and 10 (looking at
what is sampled) in the trainer.
"""

import pytest
import torch
from tensordict import TensorDict

from tesserl_iqn import QuantileNetwork, QuantilePolicy
from tesserl_nn_components import ImpalaCNN, SpectralConv2d

DISCOUNT = 0.5


def windows(*, terminated=False):
    """Windows of up to three steps over the last two of an episode, whose rewards are 1; observations count steps."""
    steps = torch.tensor([[2], [1]])
    flags = {"terminated": terminated, "truncated": not terminated, "done": True}
    following = {name: torch.full((2, 1), flag) for name, flag in flags.items()}
    following |= {"observation": torch.full((2, 5), 2.0), "reward": torch.tensor([[1 + DISCOUNT * 1], [1.0]])}
    root = {"observation": torch.tensor([[0.0], [1.0]]).expand(2, 5), "action": torch.zeros(2).long()}
    return TensorDict({**root, "steps_to_next_obs": steps, "next": following}, [2])


def targets(make_loss, transitions):
    """Return the loss's bootstrap target; every quantile of the target network is 8, of the online network 0."""
    loss = make_loss(noisy=False, discount=DISCOUNT)
    with torch.no_grad():
        for network, value in ((loss.value_network, 0.0), (loss.target_value_network, 8.0)):
            for parameter in network.parameters():
                parameter.zero_()
            network.head.value.layers[-1].bias.fill_(value)
    loss(transitions)
    return transitions["td_error"].tolist()


def test_pitfall_01_shortened_windows_are_discounted_by_the_steps_they_sum(make_loss):
    assert targets(make_loss, windows()) == [1 + 0.5 + 0.25 * 8, 1 + 0.5 * 8]


def test_pitfall_02_truncation_bootstraps_and_termination_does_not(make_loss):
    assert targets(make_loss, windows()) == [3.5, 5.0]
    assert targets(make_loss, windows(terminated=True)) == [1.5, 1.0]


def test_pitfall_04_an_error_that_is_not_a_number_is_not_hidden(make_loss, make_batch):
    loss, batch = make_loss(), make_batch(6)
    batch["next", "reward"][2] = torch.nan  # shows in loss and priority of its transition
    assert loss(batch)["loss"].isnan()
    assert batch["td_error"].isnan().tolist() == [False, False, True, False, False, False]


def test_pitfall_04_acting_returns_what_environments_take(make_loss):
    action = QuantilePolicy(make_loss().value_network).act(torch.randn(6, 5))
    assert action.dtype == torch.int64
    assert not action.requires_grad


@pytest.mark.parametrize("log_policy", ["target", "online"])
def test_pitfall_07_double_has_no_effect_under_munchausen_and_nothing_is_run_for_it(make_loss, make_batch, log_policy):
    batch, losses = make_batch(6), []
    loss = make_loss(munchausen_alpha=0.9, munchausen_log_policy=log_policy)
    for double in (True, False):
        loss.use_double = double
        runs = []
        hook = loss.value_network.body.register_forward_hook(lambda *_, runs=runs: runs.append(1))
        torch.manual_seed(0)
        losses.append(loss(batch)["loss"])
        hook.remove()
        assert len(runs) == 1
    assert torch.equal(*losses)
    assert "Without effect under Munchausen" in " ".join(type(loss).__doc__.split())


def test_pitfall_08_power_iterations_are_made_when_learning_and_not_when_acting(make_loss):
    body = ImpalaCNN((1, 8, 8), channels=[2], pool_size=2, spectral_norm="residual")
    loss = make_loss(QuantileNetwork(body, 3, hidden_sizes=()))
    layers = [module for module in loss.value_network.modules() if isinstance(module, SpectralConv2d)]
    calls = []
    for layer in layers:
        iterate = layer.power_iteration
        layer.power_iteration = lambda *args, iterate=iterate: calls.append(1) or iterate(*args)
    pixels = torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8)
    QuantilePolicy(loss.value_network).act(pixels)
    assert calls == []
    following = {"pixels": pixels, "reward": torch.zeros(4, 1), "terminated": torch.zeros(4, 1).bool()}
    loss(TensorDict({"pixels": pixels, "action": torch.zeros(4).long(), "next": following}, [4]))
    assert len(calls) == 2 * len(layers)  # now, and in the next state to choose by Double-Q


def test_pitfall_09_images_keep_height_and_width_apart():
    network = QuantileNetwork(ImpalaCNN((2, 9, 15), channels=[2], pool_size=2), 3, hidden_sizes=())
    pixels = torch.randint(256, (4, 2, 9, 15), dtype=torch.uint8)
    assert network(pixels, torch.rand(4, 7)).shape == (4, 7, 3)
    with pytest.raises(ValueError, match=r"9.*15"):
        network(pixels.transpose(-1, -2), torch.rand(4, 7))
