"""Traps of published implementations of Beyond The Rainbow, as far as they lie in this package.

Numbers 3 (the first observation of an episode), 5 (one meaning of the replay ratio) and 10 (looking at what is sampled)
are the business of what drives it.
"""

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage

from tesserl_iqn import (
    FrameStorage,
    NStepWindow,
    PrioritizedSampler,
    QuantileNetwork,
    QuantilePolicy,
    SumTree,
    n_step_returns,
)
from tesserl_nn_components import ImpalaCNN, SpectralConv2d

DISCOUNT, STEPS = 0.5, 3


def episode(*, terminated=False):
    """Two steps of reward 1 that end an episode, and the first two of another; observations count the steps."""
    end, count = torch.tensor([False, True, False, False]), torch.arange(5.0)
    flags = {"terminated": end & terminated, "truncated": end & (not terminated), "done": end}
    following = {name: flag.reshape(1, 4, 1) for name, flag in flags.items()}
    following |= {"observation": count[1:].reshape(1, 4, 1).expand(1, 4, 5), "reward": torch.ones(1, 4, 1)}
    root = {"observation": count[:-1].reshape(1, 4, 1).expand(1, 4, 5), "action": torch.zeros(1, 4).long()}
    return TensorDict({**root, "next": following}, [1, 4])


def targets(make_loss, transitions):
    """What the loss bootstraps towards, from a target whose every quantile is 8; the online network says 0."""
    loss = make_loss(noisy=False, discount=DISCOUNT)
    with torch.no_grad():
        for network, value in ((loss.value_network, 0.0), (loss.target_value_network, 8.0)):
            for parameter in network.parameters():
                parameter.zero_()
            network.head.value.layers[-1].bias.fill_(value)
    loss(transitions)
    return transitions["td_error"].tolist()


def test_pitfall_01_shortened_windows_are_discounted_by_the_steps_they_sum(make_loss):
    transitions = NStepWindow(STEPS, DISCOUNT).extend(episode())
    assert transitions["steps_to_next_obs"].flatten().tolist() == [2, 1]
    assert targets(make_loss, transitions) == [1 + 0.5 + 0.25 * 8, 1 + 0.5 * 8]
    flags = torch.tensor([False, False]), torch.tensor([False, True])
    returns, discount, _ = n_step_returns(torch.ones(2), *flags, num_steps=STEPS, discount=DISCOUNT)
    assert (returns + 8 * discount).tolist() == [3.5, 5.0]


def test_pitfall_02_truncation_bootstraps_from_the_last_observation_and_termination_does_not(make_loss):
    window = NStepWindow(STEPS, DISCOUNT)
    cut = window.extend(episode())
    window.clear()
    ended = window.extend(episode(terminated=True))
    assert cut["next", "done"].all()
    assert (cut["next", "observation"] == 2.0).all()
    assert targets(make_loss, cut) == [3.5, 5.0]
    assert targets(make_loss, ended) == [1.5, 1.0]


def test_pitfall_04_weights_are_finite_and_a_priority_that_is_not_is_refused(make_loss, make_batch):
    sampler, storage = PrioritizedSampler(4, alpha=0.2, eps=1e-6), LazyTensorStorage(4)
    storage.set(range(4), TensorDict({"reward": torch.zeros(4)}, [4]))
    sampler.update_priority(torch.arange(4), torch.tensor([0.0, 1e-30, 1.0, 1e30]))
    weight = sampler.sample(storage, 256)[1]["priority_weight"]
    assert weight.isfinite().all()
    assert (weight > 0).all()
    for wrong in (torch.nan, torch.inf, -1.0):
        with pytest.raises(ValueError, match="priority must be finite and at least 0"):
            sampler.update_priority(torch.tensor([1]), torch.tensor([wrong]))
    loss, batch = make_loss(), make_batch(6)
    batch["next", "reward"][2] = torch.nan  # shows in loss and priority of its transition, is not hidden
    assert loss(batch)["loss"].isnan()
    assert batch["td_error"].isnan().tolist() == [False, False, True, False, False, False]


def test_pitfall_04_acting_returns_what_environments_take(make_loss):
    action = QuantilePolicy(make_loss().value_network).act(torch.randn(6, 5))
    assert action.dtype == torch.int64
    assert not action.requires_grad


def test_pitfall_06_all_environments_share_one_tree_whose_sums_do_not_drift():
    tree = SumTree(1000)
    generator = torch.Generator().manual_seed(1)
    for _ in range(500):
        index = torch.randint(1000, (64,), generator=generator)
        tree.update(index, torch.rand(64, generator=generator, dtype=torch.float64) ** 12)
    assert tree.priorities.dtype == torch.float64
    torch.testing.assert_close(tree.total, tree.priorities.sum(), rtol=1e-12, atol=0)
    assert tree.sample(1000, generator=generator)[0].unique().numel() > 50


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
    storage = FrameStorage(4, num_frames=2)
    storage.set(range(4), TensorDict({"pixels": pixels, "next": {"pixels": pixels.flip(0)}}, [4]))
    assert torch.equal(storage.get(torch.arange(4))["pixels"], pixels)
