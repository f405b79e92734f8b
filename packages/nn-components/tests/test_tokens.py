import pytest
import torch

from tesserl_nn_components import DenseTokenizer, FeatureTokenizer, TokenSequence


def test_dense_tokens_are_slices_of_one_linear_layer():
    tokenizer = DenseTokenizer(5, 3, num_tokens=2)
    x = torch.randn(4, 7, 5)
    assert tokenizer(x).shape == (4, 7, 2, 3)
    torch.testing.assert_close(tokenizer(x).flatten(-2), tokenizer.linear(x))


def test_feature_tokens_are_affine_in_their_own_feature():
    tokenizer = FeatureTokenizer(5, 3)
    x = torch.randn(4, 5)
    expected = torch.stack([x[:, i : i + 1] * tokenizer.weight[i] + tokenizer.bias[i] for i in range(5)], 1)
    torch.testing.assert_close(tokenizer(x), expected)


def test_tokens_of_equal_features_differ_from_the_start():
    x = torch.ones(5)
    assert len(torch.unique(FeatureTokenizer(5, 3)(x), dim=0)) == 5
    assert len(torch.unique(DenseTokenizer(5, 3, 4)(x), dim=0)) == 4


@pytest.mark.parametrize(("vector_tokens", "num_vector_tokens"), [("dense", 4), ("per_feature", 5)])
def test_sequence_is_image_then_vector_each_with_its_modality(vector_tokens, num_vector_tokens):
    sequence = TokenSequence(
        image_features=7,
        num_image_tokens=2,
        vector_features=5,
        d_model=3,
        vector_tokens=vector_tokens,
        num_vector_tokens=4,
    )
    image, vector = torch.randn(6, 2, 7), torch.randn(6, 5)
    tokens = sequence(image, vector)
    assert sequence.num_tokens == 2 + num_vector_tokens == tokens.shape[1]
    torch.testing.assert_close(tokens[:, :2], sequence.image(image) + sequence.modalities[0])
    torch.testing.assert_close(tokens[:, 2:], sequence.vector(vector) + sequence.modalities[1])


def test_a_single_modality_has_no_embedding():
    options = {"image_features": None, "num_image_tokens": 0, "vector_features": None, "d_model": 3}
    image = TokenSequence(**(options | {"image_features": 7, "num_image_tokens": 2}))
    vector = TokenSequence(**(options | {"vector_features": 5, "num_vector_tokens": 4}))
    assert image.modalities is vector.modalities is None
    assert image(torch.zeros(2, 7), None).shape == (image.num_tokens, 3) == (2, 3)
    assert vector(None, torch.zeros(5)).shape == (vector.num_tokens, 3) == (4, 3)


def test_parameter_counts():
    def count(module):
        return sum(parameter.numel() for parameter in module.parameters())

    assert count(DenseTokenizer(5, 3, 2)) == 5 * 6 + 6
    assert count(FeatureTokenizer(5, 3)) == 2 * 5 * 3


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="num_tokens must be at least 1"):
        DenseTokenizer(5, 3, 0)
    with pytest.raises(ValueError, match='"dense" or "per_feature"'):
        TokenSequence(image_features=None, num_image_tokens=0, vector_features=5, d_model=3, vector_tokens="each")
