"""When noise is drawn and power iterations are made: the rules of docs/iqn.md."""

import copy

import pytest
import torch
from tensordict import TensorDict

from tesserl_iqn import QuantileNetwork, QuantilePolicy
from tesserl_nn_components import ImpalaCNN


@pytest.fixture
def learner(make_loss):
    """A loss around the network of Beyond The Rainbow in small, its policy, and a batch."""
    body = ImpalaCNN((1, 8, 8), channels=[2], pool_size=2, spectral_norm="residual")
    loss = make_loss(QuantileNetwork(body, 3, hidden_sizes=(11,), dueling=True, noisy=True), munchausen_alpha=0.9)
    pixels = torch.randint(256, (2, 6, 1, 8, 8), dtype=torch.uint8)
    following = {"pixels": pixels[1], "reward": torch.randn(6, 1), "terminated": torch.zeros(6, 1, dtype=torch.bool)}
    batch = TensorDict({"pixels": pixels[0], "action": torch.randint(3, (6,)), "next": following}, [6])
    return loss, QuantilePolicy(loss.value_network), batch


def buffers(network, *endings):
    return {name: value.clone() for name, value in network.named_buffers() if name.endswith(endings)}


def noise(network):
    return buffers(network, "epsilon_in", "epsilon_out")


def vectors(network):
    return buffers(network, ".u", ".v")


def changed(before, after):
    """All of them changed (True), none (False), or neither."""
    answers = {not torch.equal(before[name], after[name]) for name in before}
    assert len(answers) == 1
    return answers.pop()


def test_each_pass_of_acting_and_learning_has_noise_of_its_own(learner):
    loss, policy, batch = learner
    online, target = loss.value_network, loss.target_value_network
    policy.act(batch["pixels"])
    acting, untouched = noise(online), noise(target)
    policy.act(batch["pixels"])
    assert changed(acting, noise(online))
    acting = noise(online)
    assert not changed(untouched, noise(target))  # acting is the online network's business
    for _ in range(2):
        before = noise(online), noise(target)
        loss(batch)
        assert changed(before[0], noise(online))
        assert changed(before[1], noise(target))
    assert all(not torch.equal(value, noise(target)[name]) for name, value in noise(online).items())


def test_the_learning_pass_is_computed_with_the_noise_that_it_drew(learner):
    loss, _, batch = learner
    torch.manual_seed(0)
    drawn = loss(batch)["loss"]
    loss.eval()
    networks = [network.state_dict() for network in (loss.value_network, loss.target_value_network)]
    seen = []
    for layer in (loss.value_network.head.value.layers[0], loss.target_value_network.head.value.layers[0]):
        layer.register_forward_pre_hook(lambda module, _: seen.append(module.epsilon_in.clone()))
    loss.train()
    torch.manual_seed(0)
    loss(batch)
    # the target runs for quantiles, and the values now and next; then the online network, all under one draw each
    assert [torch.equal(value, seen[0]) for value in seen[:3]] == [True] * 3
    assert not torch.equal(seen[3], seen[0])
    assert len(seen) == 4
    assert torch.equal(seen[0], networks[1]["head.value.layers.0.epsilon_in"])
    assert torch.equal(seen[3], networks[0]["head.value.layers.0.epsilon_in"])
    assert drawn.isfinite()


def test_evaluation_has_no_noise_and_leaves_what_there_was(learner):
    loss, policy, batch = learner
    policy.act(batch["pixels"])
    before = noise(loss.value_network)
    with policy.greedy():
        assert all((value == 0).all() for value in noise(loss.value_network).values())
        first, second = (policy.action_value(batch["pixels"]) for _ in range(2))
    assert torch.equal(first, second)
    assert not changed(before, noise(loss.value_network))
    loss.eval()
    both = noise(loss.value_network), noise(loss.target_value_network)
    torch.manual_seed(0)
    value = loss(batch)["loss"]
    torch.manual_seed(0)
    assert torch.equal(loss(batch)["loss"], value)
    assert not changed(both[0], noise(loss.value_network))
    assert not changed(both[1], noise(loss.target_value_network))


def test_a_checkpoint_carries_the_noise_and_the_power_iterations_of_both_networks(learner):
    loss, policy, batch = learner
    twin = copy.deepcopy(loss)
    policy.act(batch["pixels"])
    loss(batch)
    twin.load_state_dict(loss.state_dict())
    results = []
    for each in (loss, twin):
        for network, other in (
            (loss.value_network, twin.value_network),
            (loss.target_value_network, twin.target_value_network),
        ):
            assert not changed(noise(network), noise(other))
            assert not changed(vectors(network), vectors(other))
        each.eval()
        torch.manual_seed(0)
        results.append(each(batch)["loss"])
    assert torch.equal(*results)


def test_power_iterations_move_in_learning_passes_of_the_network_that_runs(learner):
    loss, policy, batch = learner
    online, target = loss.value_network, loss.target_value_network
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for parameter in target.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    before = vectors(online), vectors(target)
    policy.act(batch["pixels"])
    assert online.training
    assert not changed(before[0], vectors(online))
    loss(batch)
    assert changed(before[0], vectors(online))
    assert changed(before[1], vectors(target))
    before = vectors(online), vectors(target)
    loss.eval()
    loss(batch)
    assert not changed(before[0], vectors(online))
    assert not changed(before[1], vectors(target))


def test_how_often_one_acts_does_not_change_what_is_learned(learner):
    loss, _, batch = learner
    twin = copy.deepcopy(loss)
    losses = []
    for each, num_calls in ((loss, 1), (twin, 5)):
        policy = QuantilePolicy(each.value_network)
        for _ in range(num_calls):
            policy.act(batch["pixels"])
        torch.manual_seed(0)
        losses.append(each(batch)["loss"])
    assert torch.equal(*losses)
