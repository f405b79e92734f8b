import copy
import pickle

import pytest
import torch
from torch import nn

from tesserl_nn_components import ConcatFusion, Conv2dHead, RunningNormalizer, VectorEncoder

F = 5


def vision():
    return Conv2dHead((3, 9, 11), [5], [3], [2], hidden_sizes=13)


def vector():
    return VectorEncoder(F, hidden_sizes=[7])


def test_vector_encoder_normalises_before_the_mlp():
    plain, encoder = vector(), VectorEncoder(F, hidden_sizes=[7], mean=torch.arange(5.0), std=torch.full((5,), 2.0))
    encoder.mlp = plain.mlp
    x = torch.randn(4, F)
    torch.testing.assert_close(encoder(x), plain((x - torch.arange(5.0)) / 2))


def test_vector_encoder_without_layers_only_normalises():
    encoder = VectorEncoder(F, hidden_sizes=(), std=[2.0] * F)
    assert encoder.out_features == F
    torch.testing.assert_close(encoder(torch.ones(F)), torch.full((F,), 0.5))


def test_vector_encoder_with_running_statistics():
    encoder = VectorEncoder(F, hidden_sizes=(), running=True)
    assert isinstance(encoder.normalizer, RunningNormalizer)
    encoder.normalizer.update(torch.stack([torch.zeros(F), torch.full((F,), 4.0)]))
    torch.testing.assert_close(encoder(torch.full((F,), 4.0)), torch.ones(F))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": [0.0] * 4}, "one number per feature"),
        ({"mean": [0.0] * 4, "std": [1.0] * 4}, "in_features=5"),
        ({"std": [0.0] * 5}, "positive"),
        ({"std": [1.0] * 5, "running": True}, "give one or the other"),
    ],
)
def test_vector_encoder_refuses_statistics_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        VectorEncoder(F, hidden_sizes=[7], **arguments)


@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (2, 3, 4)])
def test_fusion_concatenates_image_before_vector_under_any_leading_dimensions(lead):
    body = ConcatFusion(vision=vision(), vector=vector())
    pixels, observation = torch.rand(*lead, 3, 9, 11), torch.randn(*lead, F)
    assert body.in_keys == ["pixels", "observation"]
    assert body.out_features == 20
    expected = torch.cat([body.vision(pixels), body.vector(observation)], -1)
    assert expected.shape == (*lead, 20)
    assert torch.equal(body(pixels, observation), expected)


def test_fusion_with_one_branch_hands_its_features_on():
    image, state = ConcatFusion(vision=vision()), ConcatFusion(vector=vector())
    assert (image.in_keys, image.out_features) == (["pixels"], 13)
    assert (state.in_keys, state.out_features) == (["observation"], 7)
    pixels, observation = torch.rand(2, 3, 9, 11), torch.randn(2, F)
    assert torch.equal(image(pixels), image.vision(pixels))
    assert torch.equal(state(observation), state.vector(observation))


def test_fusion_refuses_no_encoder_a_wrong_number_of_tensors_and_encoders_without_width():
    with pytest.raises(ValueError, match="needs vision=, vector= or both"):
        ConcatFusion()
    with pytest.raises(ValueError, match=r"each of \['pixels', 'observation'\], got 1"):
        ConcatFusion(vision=vision(), vector=vector())(torch.zeros(3, 9, 11))
    with pytest.raises(TypeError, match="out_features: int, got ReLU"):
        ConcatFusion(vector=nn.ReLU())


def test_encoders_are_bodies_themselves():
    assert vision().in_keys == ["pixels"]
    assert vector().in_keys == ["observation"]


def test_gradient_reaches_every_parameter_of_both_branches():
    body = ConcatFusion(vision=vision(), vector=vector())
    body(torch.rand(8, 3, 9, 11), torch.randn(8, F)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in body.parameters())


def test_body_survives_copy_and_pickle():
    body = ConcatFusion(vision=vision(), vector=VectorEncoder(F, hidden_sizes=[7], running=True))
    inputs = torch.rand(2, 3, 9, 11), torch.randn(2, F)
    for twin in (copy.deepcopy(body), pickle.loads(pickle.dumps(body))):
        assert torch.equal(twin(*inputs), body(*inputs))
        assert twin.in_keys == body.in_keys
