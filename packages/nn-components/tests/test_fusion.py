import copy
import functools
import pickle

import pytest
import torch
from torch import nn

from tesserl_nn_components import (
    CNNTrunk,
    ConcatFusion,
    Conv2dHead,
    ImpalaCNN,
    LinearTrunk,
    MLPTrunk,
    PatchViT,
    PostConcatFusion,
    TransformerTrunk,
    UnifiedFusion,
    VectorEncoder,
    VisionTransformerFusion,
    freeze,
)

IMAGE, F, D, OUT = (3, 8, 12), 5, 6, 11

VISION = {
    "none": lambda: None,
    "cnn": lambda: Conv2dHead(IMAGE, [4], [3], [2], hidden_sizes=None),
    "impala": lambda: ImpalaCNN(IMAGE, channels=(4, 5)),
    "vit": lambda: PatchViT(IMAGE, patch_size=4, d_model=10, num_layers=1, num_heads=2),
}
TRUNKS = {
    "linear": LinearTrunk,
    "transformer": functools.partial(TransformerTrunk, num_layers=1, num_heads=2),
    "mlp": functools.partial(MLPTrunk, hidden_sizes=[7]),
    "cnn": functools.partial(CNNTrunk, channels=[7, 9]),
}
FUSIONS = {
    "vision_transformer": functools.partial(
        VisionTransformerFusion, out_features=OUT, d_model=D, num_tokens=3, vision_features=13
    ),
    "fused_vector": functools.partial(PostConcatFusion, out_features=OUT, d_model=D, num_tokens=3),
    "dense": functools.partial(PostConcatFusion, out_features=OUT, d_model=D, layout="token_sequence", num_tokens=3),
    "per_feature": functools.partial(
        PostConcatFusion, out_features=OUT, d_model=D, layout="token_sequence", vector_tokens="per_feature"
    ),
    "unified": functools.partial(UnifiedFusion, out_features=OUT, d_model=D, num_vector_tokens=2),
}


def vector(hidden_sizes=(7,)):
    return VectorEncoder(F, hidden_sizes=hidden_sizes, mean=[0.0] * F)


def body(fusion, vision, trunk, with_vector=True):
    return FUSIONS[fusion](vision=VISION[vision](), vector=vector() if with_vector else None, trunk=TRUNKS[trunk])


def inputs_of(network, *lead):
    tensors = {"pixels": torch.rand(*lead, *IMAGE), "observation": torch.randn(*lead, F)}
    return [tensors[key] for key in network.in_keys]


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_cell_has_its_shape_and_trains_every_parameter(fusion, vision, trunk):
    network = body(fusion, vision, trunk)
    assert network.in_keys == (["observation"] if vision == "none" else ["pixels", "observation"])
    assert network.out_features == OUT
    features = network(*inputs_of(network, 7))
    assert features.shape == (7, OUT)
    features.pow(3).sum().backward()
    dead = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("vision", ["cnn", "vit"])
def test_the_image_alone_is_enough(fusion, vision):
    network = body(fusion, vision, "transformer", with_vector=False)
    assert network.in_keys == ["pixels"]
    assert network(*inputs_of(network, 2)).shape == (2, OUT)


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_leading_dimensions_change_nothing(fusion, trunk):
    network = body(fusion, "vit", trunk)
    inputs = inputs_of(network, 2, 3)
    features = network(*inputs)
    assert features.shape == (2, 3, OUT)
    torch.testing.assert_close(features[1, 2], network(*(tensor[1, 2] for tensor in inputs)))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_each_modality_moves_the_output(fusion):
    network = body(fusion, "vit", "transformer")
    pixels, observation = inputs_of(network, 1)
    base = network(pixels, observation)
    assert not torch.allclose(network(1 - pixels, observation), base)
    assert not torch.allclose(network(pixels, observation + 1), base)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_copy_pickle_and_state_dict(fusion):
    network = body(fusion, "impala", "transformer")
    inputs = inputs_of(network, 2)
    loaded = body(fusion, "impala", "transformer")
    loaded.load_state_dict(network.state_dict())
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network)), loaded):
        assert torch.equal(twin(*inputs), network(*inputs))


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("vision", ["impala", "vit"])
def test_half_precision_is_finite_and_close(fusion, vision):
    network = body(fusion, vision, "transformer")
    inputs = inputs_of(network, 4)
    expected = network(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(network(*inputs).float(), expected, rtol=0.1, atol=0.1)
    half = copy.deepcopy(network).to(torch.bfloat16)(*(tensor.to(torch.bfloat16) for tensor in inputs))
    torch.testing.assert_close(half.float(), expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("vision", VISION)
def test_shapes_can_be_had_without_memory(fusion, vision):
    with torch.device("meta"):
        network = body(fusion, vision, "mlp")
        features = network(*inputs_of(network, 7))
    assert features.is_meta
    assert features.shape == (7, OUT)


def compiled_equals_eager(network, inputs):
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    expected = copy.deepcopy(network)(*inputs)  # a copy: spectral normalisation iterates once in each forward pass
    torch.testing.assert_close(compiled(*inputs), expected)
    compiled(*inputs).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_unified_fusion_compiles_without_a_graph_break():
    network = body("unified", "vit", "transformer")
    compiled_equals_eager(network, inputs_of(network, 4))


def test_spectral_impala_compiles_without_a_graph_break():
    network = ConcatFusion(vision=ImpalaCNN(IMAGE, channels=(4,), spectral_norm="residual"), vector=vector())
    compiled_equals_eager(network, inputs_of(network, 4))


def test_token_counts():
    assert body("unified", "vit", "linear").tokens.num_tokens == 6 + 2
    assert body("unified", "cnn", "linear").tokens.num_tokens == 1 + 2
    assert body("dense", "vit", "linear").tokens.num_tokens == 1 + 3
    assert body("per_feature", "none", "linear").tokens.num_tokens == 7
    every = PostConcatFusion(
        vision=VISION["vit"](), vector=vector(()), out_features=OUT, d_model=D, layout="token_sequence",
        image_tokens="all", vector_tokens="per_feature",
    )  # fmt: skip
    assert every.tokens.num_tokens == 6 + F
    assert every(torch.rand(2, *IMAGE), torch.randn(2, F)).shape == (2, OUT)


def test_vision_transformer_mode_is_one_linear_layer_without_a_trunk():
    network = VisionTransformerFusion(vision=VISION["cnn"](), vector=vector(), out_features=OUT, vision_features=13)
    pixels, observation = inputs_of(network, 2)
    joint = torch.cat([network.vision(pixels), network.vector(observation)], -1)
    assert joint.shape == (2, 13 + 7)
    torch.testing.assert_close(network(pixels, observation), network.bridge(joint))
    assert set(network.state_dict()) >= {"vision.project.weight", "bridge.weight"}


def test_vision_transformer_mode_without_image_has_no_image_part():
    network = VisionTransformerFusion(vector=vector(), out_features=OUT, vision_features=13)
    assert network.bridge.in_features == 7


def test_linear_trunk_is_the_mean_over_tokens():
    network = body("dense", "cnn", "linear")
    pixels, observation = inputs_of(network, 2)
    tokens = network.tokens(network.vision(pixels).unsqueeze(-2), network.vector(observation))
    torch.testing.assert_close(network(pixels, observation), network.bridge(tokens.mean(1)))


def test_order_of_tokens_matters_to_a_trunk_through_their_positions():
    network = FUSIONS["per_feature"](vector=vector(()), trunk=TRUNKS["transformer"])
    x = torch.randn(1, F)
    assert not torch.allclose(network(x), network(x.flip(-1)), atol=1e-4)


@pytest.mark.parametrize("names", [["vision"], ["vector", "tokens"], ["trunk", "bridge"]])
def test_parts_freeze_by_name(names):
    network = body("dense", "vit", "transformer")
    freeze(network, names)
    network.train()
    network(*inputs_of(network, 4)).pow(3).sum().backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == (name.split(".")[0] in names)
    assert [name for name, part in network.named_children() if not part.training] == [
        name for name, _ in network.named_children() if name in names
    ]


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: body("unified", "none", "mlp", with_vector=False), ValueError, "vision=, vector= or both"),
        (lambda: FUSIONS["dense"](vector=vector(), layout="both"), ValueError, '"fused_vector" or "token_sequence"'),
        (lambda: FUSIONS["dense"](vector=vector(), image_tokens="some"), ValueError, '"summary" or "all"'),
        (
            lambda: FUSIONS["dense"](vision=VISION["cnn"](), image_tokens="all"),
            TypeError,
            r'Conv2dHead has no tokens\(\); use image_tokens="summary"',
        ),
        (lambda: FUSIONS["dense"](vector=nn.Linear(2, 2), trunk=lambda *_: nn.ReLU()), TypeError, "got ReLU"),
        (lambda: CNNTrunk(3, D, kernel_size=2), ValueError, "kernel_size odd"),
        (lambda: CNNTrunk(3, D, channels=[]), ValueError, "at least one"),
        (lambda: TransformerTrunk(3, D, num_heads=4), ValueError, "num_heads must divide"),
    ],
)
def test_bad_options_are_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_wrong_number_of_tensors_is_refused(fusion):
    with pytest.raises(ValueError, match="one tensor for each of"):
        body(fusion, "cnn", "linear")(torch.rand(2, *IMAGE))


@pytest.mark.parametrize("trunk", ["mlp", "cnn"])
def test_dropout_of_a_trunk_acts_in_training_only(trunk):
    network = functools.partial(TRUNKS[trunk], dropout=0.5)(3, D)
    tokens = torch.randn(50, 3, D)
    assert not torch.equal(network(tokens), network(tokens))
    network.eval()
    assert torch.equal(network(tokens), network(tokens))


def test_trunk_parameter_counts():
    def count(trunk):
        return sum(parameter.numel() for parameter in TRUNKS[trunk](3, D).parameters())

    assert count("linear") == 0
    assert count("mlp") == (3 * D * 7 + 7) + (7 * D + D)
    assert count("cnn") == (D * 7 * 3 + 7) + (7 * 9 * 3 + 9) + (9 * D + D)
    layer = (3 * D * D + 3 * D) + (D * D + D) + (4 * D * D + 4 * D) + (4 * D * D + D) + 2 * 2 * D
    assert count("transformer") == layer + 2 * D  # and the last norm
