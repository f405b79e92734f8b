import functools
import math

import pytest
import torch
from torch import nn

from tesserl_nn_components import (
    CategoricalHead,
    DuelingHead,
    GaussianHead,
    MultiCategoricalHead,
    NoisyLinear,
    TransformerSlot,
    ValueHead,
)


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


@pytest.mark.parametrize("hidden_sizes", [(), (9, 11)])
def test_categorical_head_gives_logits_with_or_without_blocks(hidden_sizes):
    head = CategoricalHead(5, 7, hidden_sizes=hidden_sizes)
    blocks = CategoricalHead(5, 7, num_blocks=3, hidden_sizes=hidden_sizes)
    x = torch.randn(2, 4, 5)
    assert head(x).shape == (2, 4, 7)
    assert blocks(x).shape == (2, 4, 3, 7)
    torch.testing.assert_close(blocks(x).flatten(-2), blocks.mlp(x))


def test_multi_categorical_head_puts_choices_side_by_side():
    head = MultiCategoricalHead(5, [2, 7, 3])
    logits = head(torch.randn(4, 5))
    assert logits.shape == (4, 12)
    assert [part.shape[-1] for part in logits.split(head.nvec, -1)] == [2, 7, 3]


@pytest.mark.parametrize("nvec", [[], [2, 0]])
def test_multi_categorical_head_refuses_empty_choices(nvec):
    with pytest.raises(ValueError, match="nvec must have at least one entry, all at least 1"):
        MultiCategoricalHead(5, nvec)


def test_gaussian_head_starts_at_its_scale_and_both_outputs_train():
    head = GaussianHead(5, 3, initial_scale=0.5)
    loc, scale = head(torch.randn(2, 4, 5))
    assert loc.shape == scale.shape == (2, 4, 3)
    torch.testing.assert_close(scale, torch.full((2, 4, 3), 0.5))
    (loc.square().sum() + scale.sum()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in head.parameters())
    assert head.log_scale.grad.tolist() == [4, 4, 4]  # 8 samples x d/dl exp(l) 0.5


def test_gaussian_head_can_predict_its_scale():
    head = GaussianHead(5, 3, state_dependent_scale=True, initial_scale=0.5)
    nn.init.zeros_(head.mlp.layers[0].weight)
    head.mlp.layers[0].bias.data = torch.tensor([1.0, 2.0, 3.0, 0.0, 1.0, -1.0])
    loc, scale = head(torch.randn(2, 5))
    torch.testing.assert_close(loc, torch.tensor([1.0, 2.0, 3.0]).expand(2, 3))
    torch.testing.assert_close(scale, torch.tensor([0.5, 0.5 * math.e, 0.5 / math.e]).expand(2, 3))


def test_gaussian_scale_stays_in_its_range():
    head = GaussianHead(5, 2, min_scale=0.1, max_scale=2.0)
    head.log_scale.data = torch.tensor([-50.0, 50.0])
    torch.testing.assert_close(head(torch.zeros(5))[1], torch.tensor([0.1, 2.0]))


@pytest.mark.parametrize("scales", [{"min_scale": 0.0}, {"initial_scale": 20.0}, {"min_scale": 2.0}])
def test_gaussian_head_refuses_scales_out_of_order(scales):
    with pytest.raises(ValueError, match="min_scale <= initial_scale <= max_scale"):
        GaussianHead(5, 2, **scales)


@pytest.mark.parametrize(
    ("kind", "sizes", "width"), [(ValueHead, (), 1), (CategoricalHead, (7,), 7), (MultiCategoricalHead, ([2, 3],), 5)]
)
def test_a_head_is_made_around_the_stream_that_is_given(kind, sizes, width):
    made = []

    def stream(*, in_features, out_features):
        made.append(TransformerSlot(in_features, out_features, d_model=4, num_heads=2))
        return made[-1]

    head = kind(10, *sizes, stream=stream)
    assert made == [head.mlp]
    assert head(torch.randn(2, 10)).shape == (2, width)


def test_a_gaussian_head_has_room_for_its_scale_in_a_stream():
    slot = functools.partial(TransformerSlot, d_model=4, num_heads=2)
    head = GaussianHead(10, 3, stream=slot, state_dependent_scale=True)
    assert head.mlp.out_features == 6
    assert head(torch.randn(2, 10))[1].shape == (2, 3)


@pytest.mark.parametrize("head", [ValueHead(5), CategoricalHead(5, 3)])
def test_hooks_of_the_stream_are_called(head):
    calls = []
    head.mlp.register_forward_hook(lambda *_: calls.append("hook"))
    head(torch.randn(2, 5))
    assert calls == ["hook"]
