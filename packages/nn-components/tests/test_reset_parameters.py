"""Every module with parameters of its own can initialise them anew."""

import pytest
import torch
from torch import nn

from tesserl_nn_components import GaussianHead, PatchViT, TokenEncoder
from tesserl_nn_components.decoder import TransformerSlot
from tesserl_nn_components.tokens import FeatureTokenizer, TokenSequence

MODULES = {
    "scale": lambda: GaussianHead(5, 3),
    "tokens of features": lambda: FeatureTokenizer(5, 8),
    "modalities": lambda: TokenSequence(image_features=6, num_image_tokens=4, vector_features=5, d_model=8),
    "class token": lambda: TokenEncoder(8, 1, 2, pooling="cls"),
    "positions of patches": lambda: PatchViT((3, 8, 8), patch_size=4, d_model=8, num_layers=1, num_heads=2),
    "positions of chunks": lambda: TransformerSlot(21, 3, d_model=8, num_heads=2, hidden_features=11),
}


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES.keys())
def test_own_parameters_are_initialised_anew_and_layers_inside_stay(make):
    torch.manual_seed(0)
    module = make()
    own = list(module.parameters(recurse=False))
    inside = [parameter for parameter in module.parameters() if all(parameter is not each for each in own)]
    before = [parameter.clone() for parameter in inside]
    assert own
    for parameter in own:
        nn.init.constant_(parameter, 7.0)
    module.reset_parameters()
    assert all(parameter.abs().max() < 1 for parameter in own)
    assert all(torch.equal(*pair) for pair in zip(before, inside, strict=True))


def test_without_parameters_of_its_own_nothing_changes():
    head = GaussianHead(5, 3, state_dependent_scale=True)
    before = [parameter.clone() for parameter in head.parameters()]
    head.reset_parameters()
    assert all(torch.equal(*pair) for pair in zip(before, head.parameters(), strict=True))
