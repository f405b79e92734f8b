"""Inputs that a network cannot take are named, with what was expected and what to do."""

import numpy as np
import pytest
import torch

from tesserl_nn_components import MLP, Conv2dHead, DuelingHead, ImpalaCNN, PatchViT, VectorEncoder

IMAGE = (3, 36, 36)
PIXEL_ENCODERS = {
    "conv": lambda: Conv2dHead(IMAGE, [4], [3], [2], [8]),
    "impala": lambda: ImpalaCNN(IMAGE, channels=(2, 2, 2)),
    "vit": lambda: PatchViT(IMAGE, patch_size=6, d_model=8, num_layers=1, num_heads=2),
}


@pytest.mark.parametrize("options", [{}, {"running": True}, {"mean": [0.0] * 5}])
@pytest.mark.parametrize(
    ("observation", "kind", "message"),
    [
        (np.zeros((2, 5), np.float32), TypeError, "observation must be a tensor, got ndarray; convert it with torch"),
        (torch.zeros(2, 4), ValueError, r"observation must have the shape \[\*B, 5\], got \(2, 4\)"),
        (torch.zeros(2, 1), ValueError, r"observation must have the shape \[\*B, 5\], got \(2, 1\)"),  # no broadcast
        (torch.tensor(1.0), ValueError, r"got \(\)"),
        (torch.zeros(2, 5).double(), TypeError, "must be torch.float32 like the weights, got torch.float64"),
    ],
)
def test_a_wrong_vector_is_named(options, observation, kind, message):
    with pytest.raises(kind, match=message):
        VectorEncoder(5, hidden_sizes=[7], **options)(observation)


def test_a_wrong_vector_is_named_by_an_encoder_that_only_normalises():
    with pytest.raises(ValueError, match=r"observation must have the shape \[\*B, 5\], got \(2, 1\)"):
        VectorEncoder(5, hidden_sizes=[], running=True)(torch.zeros(2, 1))


@pytest.mark.parametrize("make", [lambda: MLP(5, [7], 3), lambda: MLP(5, [], 3, noisy=True), lambda: DuelingHead(5, 3)])
def test_wrong_features_are_named(make):
    with pytest.raises(ValueError, match=r"features must have the shape \[\*B, 5\], got \(2, 4\)"):
        make()(torch.zeros(2, 4))
    with pytest.raises(TypeError, match=r"features must be torch.float32 like the weights, got torch.int64"):
        make()(torch.zeros(2, 5, dtype=torch.int64))


@pytest.mark.parametrize("make", PIXEL_ENCODERS.values(), ids=PIXEL_ENCODERS.keys())
def test_wrong_images_are_named(make):
    with pytest.raises(TypeError, match="pixels must be a tensor, got ndarray; convert them"):
        make()(np.zeros((2, *IMAGE), np.uint8))
    with pytest.raises(ValueError, match=r"= \(3, 36, 36\), got shape \(2, 36, 36, 3\); images are channels first"):
        make()(torch.zeros(2, 36, 36, 3))


def test_another_error_of_torch_is_left_as_it_is():
    class Broken(torch.nn.Linear):
        def forward(self, features):
            raise RuntimeError("out of memory")

    mlp = MLP(5, [7], 3)
    mlp.layers[0] = Broken(5, 7)
    with pytest.raises(RuntimeError, match="out of memory"):
        mlp(torch.zeros(2, 5))
