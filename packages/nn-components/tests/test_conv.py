import copy
import pickle

import pytest
import torch
from torch import nn

from tesserl_nn_components import Conv2dHead, Conv2dStack, ImpalaCNN, PatchViT, SpectralConv2d, conv2d_output_shape
from tesserl_nn_components.pixels import scale_pixels

NATURE = {"channels": [32, 64, 64], "kernel_sizes": [8, 4, 3], "strides": [4, 2, 1]}
SMALL = {"channels": [5, 7], "kernel_sizes": [3, 2], "strides": [2, 1]}


def test_output_shape_agrees_with_the_table(vectors):
    for row in vectors("conv_shapes.json")["table"]:
        shape = conv2d_output_shape(row["h"], row["w"], row["kernel"], row["stride"], row["padding"], row["dilation"])
        assert list(shape) == row["out"]


@pytest.mark.parametrize(("h", "w"), [(17, 23), (11, 9)])
@pytest.mark.parametrize("window", [((3, 2), (2, 3), (1, 0), (2, 1)), (3, 2, 1, 2), (1, 1, 0, 1)])
def test_output_shape_agrees_with_torch(h, w, window):
    with torch.device("meta"):
        assert conv2d_output_shape(h, w, *window) == nn.Conv2d(1, 1, *window)(torch.empty(1, h, w)).shape[1:]


def test_vanishing_image_is_an_error():
    with pytest.raises(ValueError, match="at least 1 x 1, got 1 x 0 from input 3 x 2"):
        conv2d_output_shape(3, 2, 3)


def test_stacks_agree_with_the_table_of_networks(vectors):
    for network in vectors("conv_shapes.json")["networks"]:
        layers = network["layers"]
        stack = Conv2dStack(
            network["in_shape"][0],
            [layer["out"] for layer in layers],
            [layer["kernel"] for layer in layers],
            [layer["stride"] for layer in layers],
            [layer["padding"] for layer in layers],
            use_maxpool=network["use_maxpool"],
        )
        assert stack.conv_out_size(*network["in_shape"][1:]) == network["flat"]
        assert list(stack.out_shape(*network["in_shape"][1:])) == network["per_layer"][-1]


@pytest.mark.parametrize("use_maxpool", [False, True])
@pytest.mark.parametrize("strides", [[2, 1], [(2, 1), (1, 3)], [3, (2, 2)]])
@pytest.mark.parametrize("dilations", [None, [2, (1, 2)]])
def test_conv_out_size_is_the_size_of_a_forward_pass(use_maxpool, strides, dilations):
    stack = Conv2dStack(2, [3, 4], [3, (2, 3)], strides, [1, (0, 1)], use_maxpool=use_maxpool, dilations=dilations)
    assert stack.conv_out_size(19, 23, 2) == stack(torch.zeros(1, 2, 19, 23)).numel()


def test_layer_norm_stands_before_each_activation_and_takes_a_whole_image():
    head = Conv2dHead((2, 7, 9), [3, 5], [3, 3], [1, 1], [11], layer_norm=True)
    layers = [*head.conv.layers, *head.head.layers]
    names = ["Conv2d", "GroupNorm", "ReLU", "Conv2d", "GroupNorm", "ReLU", "Linear", "LayerNorm", "ReLU"]
    assert [type(layer).__name__ for layer in layers] == names
    images = torch.rand(4, 2, 7, 9)
    maps = head.conv.layers[:2](images)
    expected = nn.functional.layer_norm(head.conv.layers[0](images), (3, 5, 7))
    torch.testing.assert_close(maps, expected)
    assert head(images).shape == (4, 11)


def test_maxpool_replaces_strides_above_one_and_follows_the_activation():
    stack = Conv2dStack(1, [2, 3], [3, 3], [2, 1], use_maxpool=True)
    assert [type(layer) for layer in stack.layers] == [nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.Conv2d, nn.ReLU]
    assert stack.layers[0].stride == (1, 1)
    assert stack.layers[2].kernel_size == stack.layers[2].stride == 2


def test_error_names_the_layer_in_which_the_image_vanishes():
    stack = Conv2dStack(4, **NATURE)
    with pytest.raises(ValueError, match=r"layer 4 of the stack, Conv2d\(64, 64"):
        stack.conv_out_size(40, 30)


def test_head_refuses_an_image_that_vanishes():
    with pytest.raises(ValueError, match="layer 4 of the stack"):
        Conv2dHead((4, 40, 30), **NATURE, hidden_sizes=512)


@pytest.mark.parametrize("channels", [[], [5]])
def test_sequences_of_different_length_are_refused(channels):
    with pytest.raises(ValueError, match="one entry per convolution"):
        Conv2dStack(4, channels, [], [])


def test_wrong_channel_count_is_refused():
    with pytest.raises(ValueError, match="in_channels 4 or None, got 3"):
        Conv2dStack(4, **NATURE).conv_out_size(84, 84, 3)


def test_head_widths():
    assert Conv2dHead((4, 84, 84), **NATURE, hidden_sizes=None).out_features == 3136
    assert Conv2dHead((4, 84, 84), **NATURE, hidden_sizes=512).out_features == 512
    assert Conv2dHead((4, 84, 84), **NATURE, hidden_sizes=[], out_features=6).out_features == 6


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 1, 3), (0,)])
def test_head_takes_any_leading_dimensions(lead):
    head = Conv2dHead((3, 9, 11), **SMALL, hidden_sizes=13)
    pixels = torch.rand(*lead, 3, 9, 11)
    features = head(pixels)
    assert features.shape == (*lead, 13)
    if features.numel():
        flat = head(pixels.reshape(-1, 3, 9, 11))
        torch.testing.assert_close(features.reshape(-1, 13), flat)


def test_bytes_become_the_unit_interval_and_floats_stay_as_they_are():
    head = Conv2dHead((3, 9, 11), **SMALL, hidden_sizes=13)
    pixels = torch.randint(256, (5, 3, 9, 11), dtype=torch.uint8)
    before = pixels.clone()
    torch.testing.assert_close(head(pixels), head(pixels / 255))
    assert not torch.allclose(head(pixels), head(pixels.float()))
    assert torch.equal(pixels, before)
    floats = pixels / 255
    kept = floats.clone()
    head(floats)
    assert torch.equal(floats, kept)


def test_symmetric_range_maps_bytes_to_minus_one_and_one():
    head = Conv2dHead((3, 9, 11), **SMALL, hidden_sizes=13, pixel_range="symmetric")
    black_white = torch.zeros(2, 3, 9, 11, dtype=torch.uint8)
    black_white[1] = 255
    torch.testing.assert_close(head(black_white), head(black_white.float() / 127.5 - 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_centered_range_is_the_distance_from_128_in_128ths(dtype):
    pixels = torch.arange(256, dtype=torch.uint8)
    centered = scale_pixels(pixels, dtype, "centered")
    assert centered.dtype == dtype
    assert centered.tolist() == [(value - 128) / 128 for value in range(256)]  # exact in every dtype
    for name, first, last in (("centered", -1, 127 / 128), ("symmetric", -1, 1), ("unit", 0, 1)):
        assert scale_pixels(pixels, torch.float32, name)[[0, -1]].tolist() == [first, last]


@pytest.mark.parametrize(
    "make",
    [
        lambda **options: Conv2dHead((3, 9, 11), **SMALL, hidden_sizes=13, **options),
        lambda **options: ImpalaCNN((3, 9, 11), channels=[2, 3], **options),
        lambda **options: PatchViT((3, 8, 12), patch_size=4, d_model=8, num_layers=1, num_heads=2, **options),
    ],
    ids=["cnn", "impala", "vit"],
)
def test_every_encoder_of_images_has_the_centered_range(make):
    encoder = make(pixel_range="centered").eval()
    pixels = torch.randint(256, (2, *encoder.image_shape), dtype=torch.uint8)
    centered = (pixels.double() - 128) / 128
    torch.testing.assert_close(encoder(pixels), encoder(centered.float()))
    other = make(pixel_range="symmetric").eval()
    other.load_state_dict(encoder.state_dict())
    assert not torch.allclose(encoder(pixels), other(pixels), atol=1e-6)


def test_unknown_range_is_refused():
    with pytest.raises(ValueError, match=r'"unit".*"symmetric".*"centered".*got \'signed\''):
        Conv2dHead((3, 9, 11), **SMALL, hidden_sizes=13, pixel_range="signed")


def test_other_dtypes_are_refused():
    with pytest.raises(TypeError, match=r"uint8.*got torch\.int64"):
        Conv2dHead((3, 9, 11), **SMALL, hidden_sizes=13)(torch.zeros(1, 3, 9, 11, dtype=torch.int64))


def test_channels_last_images_are_refused_by_name_of_the_shape():
    with pytest.raises(ValueError, match=r"\(3, 9, 11\), got shape \(1, 9, 11, 3\); images are channels first"):
        Conv2dHead((3, 9, 11), **SMALL, hidden_sizes=13)(torch.zeros(1, 9, 11, 3))


@pytest.mark.parametrize("shape", [(9, 11), (0, 9, 11)])
def test_bad_image_shape_is_refused(shape):
    with pytest.raises(ValueError, match="image_shape must be"):
        Conv2dHead(shape, **SMALL, hidden_sizes=13)


def test_channels_last_memory_changes_nothing():
    head = Conv2dHead((3, 9, 11), **SMALL, hidden_sizes=None)
    pixels = torch.rand(2, 3, 9, 11)
    expected = head(pixels)
    strided = copy.deepcopy(head).to(memory_format=torch.channels_last)
    torch.testing.assert_close(strided(pixels.to(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize("pixel_range", ["unit", "symmetric", "centered"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_bytes_reach_the_convolutions_as_these_want_them_and_are_rounded_once(pixel_range, memory_format):
    head = Conv2dHead((3, 16, 16), **SMALL, hidden_sizes=None, pixel_range=pixel_range)
    head.to(memory_format=memory_format)
    seen = []
    head.conv.layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    pixels = torch.arange(256, dtype=torch.uint8).expand(2, 3, 256).reshape(2, 3, 16, 16)
    offset, scale = {"unit": (0, 255), "symmetric": (127.5, 127.5), "centered": (128, 128)}[pixel_range]
    exact = (pixels.double() - offset) / scale
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype, enabled=dtype is torch.bfloat16):
            from_bytes, from_floats = head(pixels), head(exact.float())
        assert torch.equal(seen[-2], exact.to(dtype))
        assert seen[-2].is_contiguous(memory_format=memory_format)
        torch.testing.assert_close(from_bytes, from_floats, rtol=0, atol=0 if dtype is torch.bfloat16 else 1e-6)


@pytest.mark.parametrize("hidden_sizes", [None, 13])
def test_head_survives_pickling(hidden_sizes):
    head = Conv2dHead((3, 9, 11), **SMALL, hidden_sizes=hidden_sizes)
    pixels = torch.rand(2, 3, 9, 11)
    assert torch.equal(pickle.loads(pickle.dumps(head))(pixels), head(pixels))


def test_half_precision_network_takes_bytes():
    head = Conv2dHead((3, 9, 11), **SMALL, hidden_sizes=13).to(torch.bfloat16)
    assert head(torch.zeros(2, 3, 9, 11, dtype=torch.uint8)).dtype == torch.bfloat16


def test_pool_size_is_the_side_of_the_last_map_whatever_the_image():
    stack = Conv2dStack(2, [3], [3], [1], pool_size=4)
    plain = Conv2dStack(2, [3], [3], [1])
    plain.load_state_dict(stack.state_dict())
    pixels = torch.rand(5, 2, 10, 13)
    assert torch.equal(stack(pixels), torch.nn.functional.adaptive_max_pool2d(plain(pixels), 4))
    assert (stack.out_shape(10, 13), stack.conv_out_size(10, 13)) == ((3, 4, 4), 48)
    head = Conv2dHead((2, 10, 10), [3], [3], [1], [7], pool_size=8)  # as large as the map
    assert head(torch.rand(5, 2, 10, 10)).shape == (5, 7)


def test_a_pool_larger_than_the_map_is_refused():
    with pytest.raises(ValueError, match="pool_size must be at most 8, as the map is 8 x 8, got 9"):
        Conv2dHead((2, 10, 10), [3], [3], [1], [], pool_size=9)


@pytest.mark.parametrize("options", [{"pool_size": 0}, {"spectral_norm": "residual"}])
def test_bad_pooling_and_norm_are_refused(options):
    with pytest.raises(ValueError, match='spectral_norm must be "none" or "all" and pool_size None or at least 1'):
        Conv2dStack(2, [3], [3], [1], **options)


def test_spectral_norm_divides_each_convolution_by_its_largest_singular_value():
    stack = Conv2dStack(2, [6, 5], [(3, 2), 3], [(2, 1), 1], [1, (0, 1)], dilations=[1, (1, 2)], spectral_norm="all")
    plain = Conv2dStack(2, [6, 5], [(3, 2), 3], [(2, 1), 1], [1, (0, 1)], dilations=[1, (1, 2)])
    for module in stack.modules():
        if isinstance(module, SpectralConv2d):
            module.power_iteration(500)
    for name, parameter in plain.named_parameters():
        value = stack.get_parameter(name).detach()
        scale = torch.linalg.matrix_norm(value.flatten(1), ord=2) if name.endswith("weight") else 1
        parameter.data.copy_(value / scale)
    pixels = torch.rand(4, 2, 11, 9)
    torch.testing.assert_close(stack.eval()(pixels), plain(pixels))
