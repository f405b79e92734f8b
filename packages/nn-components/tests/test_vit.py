import copy
import pickle

import pytest
import torch
from torch import nn

from tesserl_nn_components import PatchViT, TokenEncoder, TokenPooling, TransformerLayer

SMALL = {"patch_size": 4, "d_model": 6, "num_layers": 2, "num_heads": 2}


def torch_layer(ours, d_model, num_heads, **options):
    """The same weights in torch's own encoder layer."""
    theirs = nn.TransformerEncoderLayer(
        d_model, num_heads, 4 * d_model, options.get("dropout", 0.0), "gelu", batch_first=True, norm_first=ours.pre_norm
    )
    theirs.self_attn.in_proj_weight.data = ours.qkv.weight.data
    theirs.self_attn.in_proj_bias.data = ours.qkv.bias.data
    pairs = [
        (theirs.self_attn.out_proj, ours.project[0]),
        (theirs.linear1, ours.feedforward[0]),
        (theirs.linear2, ours.feedforward[3]),
        (theirs.norm1, ours.norm1),
        (theirs.norm2, ours.norm2),
    ]
    for target, source in pairs:
        target.load_state_dict(source.state_dict())
    return theirs


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_layer_equals_torch_s_encoder_layer(norm):
    ours = TransformerLayer(6, 2, norm=norm)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.5)
    theirs = torch_layer(ours, 6, 2)
    tokens = torch.randn(3, 5, 6, requires_grad=True)
    torch.testing.assert_close(ours(tokens), theirs(tokens))
    (ours_grad,) = torch.autograd.grad(ours(tokens).square().sum(), tokens)
    (theirs_grad,) = torch.autograd.grad(theirs(tokens).square().sum(), tokens)
    torch.testing.assert_close(ours_grad, theirs_grad)


def test_layer_has_the_parameters_of_torch_s():
    count = sum(p.numel() for p in TransformerLayer(8, 2).parameters())
    # qkv 8*24+24, projection 8*8+8, feed-forward 8*32+32 + 32*8+8, two norms of 16
    assert count == 216 + 72 + 288 + 264 + 32
    assert count == sum(p.numel() for p in nn.TransformerEncoderLayer(8, 2, 32).parameters())


def test_dropout_acts_in_training_only():
    layer = TransformerLayer(6, 2, dropout=0.5)
    tokens = torch.randn(3, 5, 6)
    assert not torch.equal(layer(tokens), layer(tokens))
    layer.eval()
    assert torch.equal(layer(tokens), layer(tokens))


def test_layers_of_a_stack_start_different():
    encoder = TokenEncoder(6, 2, 2)
    assert not torch.equal(encoder.layers[0].qkv.weight, encoder.layers[1].qkv.weight)


def test_poolings_by_hand():
    tokens = torch.tensor([[[1.0, 0.0], [3.0, 4.0]]])
    assert TokenPooling(2, "mean")(tokens).tolist() == [[2, 2]]
    assert TokenPooling(2, "cls")(tokens).tolist() == [[1, 0]]
    attention = TokenPooling(2, "attention")
    nn.init.zeros_(attention.score.weight)
    torch.testing.assert_close(attention(tokens), tokens.mean(1))  # equal scores: the mean
    attention.score.weight.data.fill_(100.0)
    torch.testing.assert_close(attention(tokens), tokens[:, 1])  # one score far above: its token


@pytest.mark.parametrize("pooling", ["mean", "cls", "attention"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_every_pooling_and_norm_trains_every_parameter(pooling, norm):
    vit = PatchViT((3, 8, 12), **SMALL, pooling=pooling, norm=norm)
    pixels = torch.rand(2, 3, 8, 12)
    assert vit(pixels).shape == (2, 6)
    assert vit.tokens(pixels).shape == (2, 6, 6)
    vit(pixels).pow(3).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in vit.parameters())


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (0,)])
def test_any_leading_dimensions(lead):
    vit = PatchViT((3, 8, 12), **SMALL)
    pixels = torch.randint(256, (*lead, 3, 8, 12), dtype=torch.uint8)
    assert vit(pixels).shape == (*lead, 6)
    assert vit.tokens(pixels).shape == (*lead, 6, 6)
    if len(lead) == 2:
        torch.testing.assert_close(vit(pixels)[1, 2], vit(pixels[1, 2]))


def test_tokens_are_patches_row_by_row():
    vit = PatchViT((1, 8, 12), patch_size=4, d_model=6, num_layers=0, num_heads=2)
    nn.init.zeros_(vit.positions)
    pixels = torch.zeros(1, 8, 12)
    pixels[:, 4:, :4] = 1  # second row, first column
    changed = (vit.tokens(pixels) - vit.tokens(torch.zeros(1, 8, 12))).abs().sum(-1) > 0
    assert changed.tolist() == [False, False, False, True, False, False]


def test_mean_pooling_is_the_mean_of_the_tokens():
    vit = PatchViT((3, 8, 12), **SMALL)
    pixels = torch.rand(2, 3, 8, 12)
    torch.testing.assert_close(vit(pixels), vit.tokens(pixels).mean(1))


def test_positions_tell_patches_apart():
    vit = PatchViT((3, 8, 12), **SMALL)
    tokens = vit.tokens(torch.ones(3, 8, 12))  # equal patches
    assert len(torch.unique(tokens, dim=0)) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 5}, "patch_size=5 for 8 x 12 pixels; choose a common divisor"),
        ({"patch_size": 0}, "patch_size must divide"),
        ({"num_heads": 4}, "d_model=6 and num_heads=4"),
        ({"num_layers": -1}, "num_layers must be at least 0"),
        ({"num_layers": 0, "pooling": "cls"}, "its token sees nothing"),
        ({"pooling": "max"}, '"mean", "cls" or "attention"'),
        ({"norm": "mid"}, '"pre" or "post"'),
        ({"feedforward_ratio": 0.0}, "hidden width of at least 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PatchViT((3, 8, 12), **(SMALL | options))


def test_copy_and_pickle():
    vit = PatchViT((3, 8, 12), **SMALL, pooling="cls")
    pixels = torch.rand(2, 3, 8, 12)
    for twin in (copy.deepcopy(vit), pickle.loads(pickle.dumps(vit))):
        assert torch.equal(twin(pixels), vit(pixels))
