import copy
import pickle

import pytest
import torch
from torch import nn

from tesserl_nn_components import COMPACT_CNN, NATURE_CNN, Conv2dHead, ImpalaCNN, SpectralConv2d, orthogonal_init


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def impala_parameters(in_channels, widths):
    """3 x 3 convolutions: one into the stage, four inside it."""
    total = 0
    for width in widths:
        total += in_channels * width * 9 + width + 4 * (width * width * 9 + width)
        in_channels = width
    return total


@pytest.mark.parametrize(
    ("size", "features"), [((64, 64), 512), ((84, 84), 1568), ((128, 128), 4608), ((120, 160), 5632)]
)
def test_compact_cnn_has_the_catalogued_width_and_parameters(size, features):
    encoder = Conv2dHead((1, *size), **COMPACT_CNN, hidden_sizes=None, activation=nn.LeakyReLU)
    assert encoder.out_features == features
    assert count(encoder) == 45_456


def test_nature_cnn_has_its_published_width():
    assert Conv2dHead((4, 84, 84), **NATURE_CNN, hidden_sizes=None).out_features == 3136


@pytest.mark.parametrize("name", ["84x84_x1", "84x84_x2", "75x140_x2", "64x64_x2"])
def test_widths_agree_with_the_table(vectors, name):
    case = vectors("conv_shapes.json")["impala"][name]
    size, width = name.split("_x")
    image_shape = (4, *map(int, size.split("x")))
    encoder = ImpalaCNN(image_shape, width=int(width))
    assert list(encoder.out_shape) == case["per_block"][-1]
    assert encoder.out_features == case["flat_no_pool"]
    assert ImpalaCNN(image_shape, width=int(width), pool_size=6).out_features == case["flat_adaptive6"]
    image = torch.zeros(1, *image_shape)
    for stage, shape in zip(encoder.stages, case["per_block"], strict=True):
        image = stage(image)
        assert list(image.shape[1:]) == shape


@pytest.mark.parametrize(("width", "parameters"), [(1, 97_312), (2, 388_160)])
def test_parameters_agree_with_the_catalogue(width, parameters):
    assert count(ImpalaCNN((1, 64, 64), width=width)) == parameters
    assert impala_parameters(1, [16 * width, 32 * width, 32 * width]) == parameters
    assert count(ImpalaCNN((1, 64, 64), width=width, spectral_norm="all")) == parameters


@pytest.mark.parametrize(("spectral_norm", "expected"), [("none", 0), ("residual", 12), ("all", 15)])
def test_spectral_norm_reaches_the_named_convolutions(spectral_norm, expected):
    encoder = ImpalaCNN((1, 16, 16), spectral_norm=spectral_norm)
    assert sum(isinstance(layer, SpectralConv2d) for layer in encoder.modules()) == expected
    assert isinstance(encoder.stages[0].conv, SpectralConv2d) == (spectral_norm == "all")


def test_forward_is_the_published_block_written_out():
    encoder = ImpalaCNN((2, 9, 7), channels=[3], pool_size=2)
    pixels = torch.rand(5, 2, 9, 7)
    stage = encoder.stages[0]
    x = nn.functional.max_pool2d(stage.conv(pixels), 3, 2, 1)
    for block in stage.blocks:
        x = x + block.conv2(block.conv1(x.relu()).relu())
    expected = nn.functional.adaptive_max_pool2d(x, 2).relu().flatten(1)
    torch.testing.assert_close(encoder(pixels), expected)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
@pytest.mark.parametrize("options", [{}, {"pool_size": 3, "spectral_norm": "residual"}])
def test_any_leading_dimensions_bytes_and_gradient(lead, options):
    encoder = ImpalaCNN((3, 11, 13), channels=(4, 5), **options)
    features = encoder(torch.randint(256, (*lead, 3, 11, 13), dtype=torch.uint8))
    assert features.shape == (*lead, encoder.out_features)
    features.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in encoder.parameters())


def test_bytes_become_the_unit_interval():
    encoder = ImpalaCNN((3, 11, 13), channels=(4,))
    pixels = torch.randint(256, (2, 3, 11, 13), dtype=torch.uint8)
    torch.testing.assert_close(encoder(pixels), encoder(pixels / 255))


@pytest.mark.parametrize("options", [{"channels": ()}, {"width": 0}, {"pool_size": 0}, {"spectral_norm": "some"}])
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match=r"at least 1|spectral_norm must be"):
        ImpalaCNN((3, 11, 13), **options)


class TestSpectralConv2d:
    def test_equals_torch_s_parametrization_step_for_step(self):
        ours = SpectralConv2d(3, 5, 3, padding=1)
        theirs = nn.Conv2d(3, 5, 3, padding=1)
        theirs.load_state_dict({"weight": ours.weight, "bias": ours.bias})
        theirs = nn.utils.parametrizations.spectral_norm(theirs)
        theirs.parametrizations.weight[0]._u.copy_(ours.u)
        theirs.parametrizations.weight[0]._v.copy_(ours.v)
        x = torch.randn(2, 3, 6, 7)
        for training in (True, True, False):
            ours.train(training)
            theirs.train(training)
            torch.testing.assert_close(ours(x), theirs(x))
        ours(x).square().sum().backward()
        theirs(x).square().sum().backward()
        torch.testing.assert_close(ours.weight.grad, theirs.parametrizations.weight.original.grad)

    def test_largest_singular_value_is_one(self):
        layer = SpectralConv2d(3, 5, 3)
        for _ in range(50):
            layer(torch.zeros(1, 3, 3, 3))
        used = layer.eval()(torch.eye(27).reshape(27, 3, 3, 3)) - layer.bias[:, None, None]
        assert torch.linalg.matrix_norm(used.flatten(1), 2).item() == pytest.approx(1, abs=1e-4)

    def test_evaluation_mode_leaves_the_vectors_and_training_moves_them(self):
        layer = SpectralConv2d(3, 5, 3)
        layer.u.copy_(nn.functional.normalize(torch.ones(5), dim=0))
        before = layer.u.clone()
        layer.eval()(torch.zeros(1, 3, 3, 3))
        assert torch.equal(layer.u, before)
        layer.train()(torch.zeros(1, 3, 3, 3))
        assert not torch.equal(layer.u, before)

    @pytest.mark.parametrize("training", [True, False])
    def test_two_forward_passes_before_backward_are_fine(self, training):
        layer = SpectralConv2d(3, 5, 3).train(training)
        first = layer(torch.randn(1, 3, 3, 3))
        second = layer.train()(torch.randn(1, 3, 3, 3))
        (first + second).sum().backward()
        assert layer.weight.grad.isfinite().all()

    def test_orthogonal_weights_have_their_vectors_at_once(self):
        layer = orthogonal_init(SpectralConv2d(3, 5, 3), 3.0).eval()
        x = torch.randn(1, 3, 3, 3)
        # Orthogonal rows times 3: every singular value is 3
        torch.testing.assert_close(layer(x), nn.functional.conv2d(x, layer.weight / 3, layer.bias))

    def test_copy_and_pickle(self):
        encoder = ImpalaCNN((3, 11, 13), channels=(4,), spectral_norm="all").eval()
        pixels = torch.rand(2, 3, 11, 13)
        for twin in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
            assert torch.equal(twin(pixels), encoder(pixels))
