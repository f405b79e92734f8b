import pytest
import torch
from torch import nn

from tesserl_nn_components import DuelingHead, NoisyLinear, ValueHead


def pass_through(head, advantage, value):
    """Replaces the two MLPs by given numbers."""
    head.advantage = nn.Sequential()
    head.value = nn.Sequential()
    head.advantage.forward = lambda _: torch.tensor(advantage)
    head.value.forward = lambda _: torch.tensor(value)
    return head


def test_scalar_values_agree_with_hand_computed(vectors):
    case = vectors("dueling.json")["scalar"]
    head = pass_through(DuelingHead(5, 3), [case["a"]], [[case["v"]]])
    torch.testing.assert_close(head(torch.zeros(1, 5)), torch.tensor([case["q"]]))


def test_quantiles_combine_one_by_one(vectors):
    case = vectors("dueling.json")["quantile"]
    head = pass_through(DuelingHead(5, 4), case["a"], [[[v] for v in row] for row in case["v"]])
    torch.testing.assert_close(head(torch.zeros(2, 3, 5)), torch.tensor(case["q"]))


def test_mean_over_actions_is_the_value():
    head = DuelingHead(5, 7, hidden_sizes=(9, 11))
    x = torch.randn(2, 3, 5)
    assert head(x).shape == (2, 3, 7)
    torch.testing.assert_close(head(x).mean(-1, keepdim=True), head.value(x))


def test_each_block_has_its_own_value():
    head = DuelingHead(5, 7, hidden_sizes=9, num_blocks=3)
    x = torch.randn(2, 5)
    assert head(x).shape == (2, 3, 7)
    torch.testing.assert_close(head(x).mean(-1), head.value(x))
    assert head.value(x).shape == (2, 3)


def test_noisy_reaches_both_streams():
    head = DuelingHead(5, 7, hidden_sizes=9, noisy=True)
    assert not any(isinstance(layer, nn.Linear) for layer in head.modules())
    assert sum(isinstance(layer, NoisyLinear) for layer in head.modules()) == 4


def test_gradient_scale_changes_the_gradient_below_and_not_the_head():
    head = DuelingHead(5, 7, hidden_sizes=9)
    x = torch.randn(2, 5, requires_grad=True)
    full = torch.autograd.grad(head(x).square().sum(), [x, head.value.layers[0].weight])
    head.gradient_scale = 0.5
    half = torch.autograd.grad(head(x).square().sum(), [x, head.value.layers[0].weight])
    torch.testing.assert_close(half[0], full[0] / 2)
    torch.testing.assert_close(half[1], full[1])


def test_value_head_gives_one_number():
    assert ValueHead(5)(torch.zeros(2, 3, 5)).shape == (2, 3, 1)
    assert sum(p.numel() for p in ValueHead(5, hidden_sizes=7).parameters()) == 5 * 7 + 7 + 7 + 1


def test_bad_block_count_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        DuelingHead(5, 7, num_blocks=0)
