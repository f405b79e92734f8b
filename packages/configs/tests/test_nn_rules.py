"""Each rule of ``nn:``: what breaks it, the message, and the nearest block that does not break it."""

import importlib.util

import pytest

from tesserl_configs import nn_rules
from tesserl_configs.introspection import blocks_in
from tesserl_configs.nn import NNConfig, Stream
from tesserl_configs.vision import CNNVision

VIT = {"kind": "vit"}
CNN = {"kind": "cnn"}
MLP = {"kind": "mlp"}
SEQUENCE = {"kind": "token_sequence"}
UNIFIED = {"kind": "unified"}
TRANSFORMER = {"kind": "transformer"}

BROKEN = {
    "there_is_a_branch": (
        {},
        "nn: vision and vector are both none; choose an encoder for images (vision) or for vectors (vector)",
    ),
    "kernel sizes": (
        {"vision": CNN | {"channels": [8, 8], "kernel_sizes": [3], "strides": [1, 1]}},
        "nn.vision.kernel_sizes: expected 2 entries, one for each entry of channels, got 1",
    ),
    "strides": (
        {"vision": CNN | {"channels": [8], "kernel_sizes": [3], "strides": [1, 1]}},
        "nn.vision.strides: expected 1 entries, one for each entry of channels, got 2",
    ),
    "paddings": (
        {"vision": CNN | {"preset": "compact", "paddings": [1]}},
        "nn.vision.paddings: expected 4 entries, one for each entry of channels, got 1",
    ),
    "preset and columns": (
        {"vision": CNN | {"preset": "compact", "strides": [1, 1, 1, 1]}},
        "nn.vision.strides: preset compact sets it to [2, 2, 2, 1], got [1, 1, 1, 1]; remove strides or preset",
    ),
    "mean and std": (
        {"vector": MLP | {"normalization": {"kind": "fixed", "mean": [0, 0], "std": [1, 1, 1]}}},
        "nn.vector.normalization.std: expected 2 numbers, one for each entry of mean, got 3",
    ),
    "heads of vit": (
        {"vision": VIT | {"d_model": 10}},
        "nn.vision.num_heads: expected a divisor of nn.vision.d_model = 10, got 4",
    ),
    "heads of the trunk": (
        {"vector": MLP, "fusion": UNIFIED | {"d_model": 6}},
        "nn.fusion.trunk.num_heads: expected a divisor of nn.fusion.d_model = 6, got 4",
    ),
    "heads of a stream": (
        {"vector": MLP, "heads": {"advantage": TRANSFORMER | {"d_model": 9, "num_heads": 2}}},
        "nn.heads.advantage.num_heads: expected a divisor of nn.heads.advantage.d_model = 9, got 2",
    ),
    "heads of the refinement": (
        {"vision": {"kind": "hf", "model": "x", "out_features": 7, "refine_layers": 1}},
        "nn.vision.refine_heads: expected a divisor of nn.vision.out_features = 7, got 4",
    ),
    "class token": (
        {"vision": VIT | {"num_layers": 0, "pooling": "cls"}},
        "nn.vision.pooling: cls needs num_layers of at least 1, got 0; choose mean or attention",
    ),
    "kernels_are_odd": (
        {"vector": MLP, "fusion": UNIFIED | {"trunk": {"kind": "cnn", "kernel_size": 4}}},
        "nn.fusion.trunk.kernel_size: expected an odd number, got 4",
    ),
    "trunks_have_tokens": (
        {"vector": MLP, "fusion": {"kind": "vision_transformer", "num_tokens": 2}},
        "nn.fusion.num_tokens: trunk linear has no tokens here; remove the key or choose another trunk",
    ),
    "image features": (
        {"vector": MLP, "fusion": {"kind": "vision_transformer", "vision_features": 2}},
        "nn.fusion.vision_features: nn.vision has kind none; remove the key",
    ),
    "image tokens": (
        {"vision": CNN, "fusion": {"kind": "post_concat", "layout": SEQUENCE | {"image_tokens": "all"}}},
        "nn.fusion.layout.image_tokens: all needs an encoder with tokens (vit, hf), got nn.vision of kind cnn; "
        "choose summary",
    ),
    "pooling of all image tokens": (
        {"vision": VIT | {"pooling": "cls"}, "fusion": UNIFIED},
        "nn.vision.pooling: the fusion reads all tokens, before the pooling; expected the default mean, got cls",
    ),
    "vector tokens": (
        {"vision": CNN, "fusion": UNIFIED | {"num_vector_tokens": 2}},
        "nn.fusion.num_vector_tokens: nn.vector has kind none; remove the key",
    ),
    "vector tokens of a sequence": (
        {
            "vision": CNN,
            "fusion": {"kind": "post_concat", "layout": SEQUENCE | {"vector_tokens": {"kind": "per_feature"}}},
        },
        "nn.fusion.layout.vector_tokens: nn.vector has kind none; remove the key",
    ),
    "norm of the vector": (
        {"vector": MLP | {"hidden_sizes": [], "layer_norm": True}},
        "nn.vector.layer_norm: there is no layer, nn.vector.hidden_sizes is empty; set it to false",
    ),
    "norm of the heads": (
        {"vector": MLP, "heads": {"hidden_sizes": [], "layer_norm": True}},
        "nn.heads.layer_norm: there is no hidden layer; set it to false",
    ),
    "value without dueling": (
        {"vector": MLP, "heads": {"value": MLP}},
        "nn.heads.value: there is no value stream; set nn.heads.dueling: true or remove the key",
    ),
    "policy of iqn": (
        {"vector": MLP, "heads": {"policy": MLP}},
        "nn.heads.policy: iqn has no policy; its streams are advantage and, if dueling, value",
    ),
    "shared layers of iqn": (
        {"vector": MLP, "heads": {"shared_hidden_sizes": [3]}},
        "nn.heads.shared_hidden_sizes: belongs to algorithms with a policy, got iqn; remove the key",
    ),
    "sizes of no stream": (
        {"vector": MLP, "heads": {"hidden_sizes": [3], "advantage": MLP}},
        "nn.heads.hidden_sizes: every stream has a block of its own; remove the key",
    ),
    "frozen part": (
        {"vector": MLP, "freeze": ["vector", "vision"]},
        "nn.freeze.1: this network has no part vision; parts: vector, embedding, heads, advantage",
    ),
    "frozen trunk": (
        {"vector": MLP, "fusion": UNIFIED | {"trunk": {"kind": "linear"}}, "freeze": ["trunk"]},
        "nn.freeze.0: this network has no part trunk; parts: vector, fusion, embedding, heads, advantage",
    ),
    "all frozen": (
        {"vector": MLP, "freeze": ["vector", "embedding", "heads"]},
        "nn.freeze: every part is frozen, nothing is left to learn; leave one out",
    ),
    "all that learns frozen": (
        {"vector": MLP | {"hidden_sizes": []}, "freeze": ["embedding", "advantage"]},
        "nn.freeze: every part is frozen, nothing is left to learn; leave one out",
    ),
    "factor of a missing part": (
        {"vector": MLP, "learning_rate_factors": {"policy": 2}},
        "nn.learning_rate_factors.policy: this network has no part policy; parts: vector, embedding, heads, advantage",
    ),
    "factor of a frozen part": (
        {"vector": MLP, "freeze": ["heads"], "learning_rate_factors": {"advantage": 2}},
        "nn.learning_rate_factors.advantage: advantage is frozen by nn.freeze; remove one of the two",
    ),
    "factor of nothing": (
        {"vector": MLP | {"hidden_sizes": []}, "learning_rate_factors": {"vector": 2}},
        "nn.learning_rate_factors.vector: there is no layer, nn.vector.hidden_sizes is empty; remove the key",
    ),
    "two factors": (
        {"vector": MLP, "learning_rate_factors": {"heads": 2, "advantage": 3}},
        "nn.learning_rate_factors.heads: advantage in it would have two factors; remove one of them",
    ),
}

KEPT = {
    "vision alone": {"vision": CNN},
    "columns of a table": {
        "vision": CNN | {"channels": [8, 8], "kernel_sizes": [3, 3], "strides": [1, 1], "paddings": [0, 1]}
    },
    "preset with equal columns": {"vision": CNN | {"preset": "compact", "strides": [2, 2, 2, 1]}},
    "statistics": {"vector": MLP | {"normalization": {"kind": "fixed", "mean": [0, 0], "std": [1, 1]}}},
    "divided width": {"vision": VIT | {"d_model": 12}},
    "no layers, nothing to divide": {"vision": VIT | {"d_model": 10, "num_layers": 0}},
    "class token": {"vision": VIT | {"pooling": "cls"}, "fusion": {"kind": "post_concat"}},
    "odd kernel": {"vector": MLP, "fusion": UNIFIED | {"trunk": {"kind": "cnn", "kernel_size": 5}}},
    "all image tokens": {
        "vision": VIT,
        "fusion": {"kind": "post_concat", "layout": SEQUENCE | {"image_tokens": "all"}},
    },
    "one token of a convolution": {"vision": CNN, "fusion": UNIFIED},
    "value stream": {"vector": MLP, "heads": {"dueling": True, "value": TRANSFORMER, "hidden_sizes": [3]}},
    "frozen parts": {"vector": MLP, "vision": CNN, "freeze": ["vector", "vision", "heads"]},
    "statistics alone are frozen": {
        "vector": MLP | {"hidden_sizes": [], "normalization": {"kind": "running"}},
        "freeze": ["vector"],
    },
    "factors": {"vector": MLP, "fusion": UNIFIED, "learning_rate_factors": {"trunk": 0.1, "heads": 2}},
}


def problems(block: dict, algorithm: str = "iqn") -> list[str]:
    return [str(problem) for problem in nn_rules.check(NNConfig.model_validate(block), algorithm)]


@pytest.mark.parametrize(("block", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_rule_says_where_and_what(block, message, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)  # the extra is installed
    assert problems(block) == [message]


@pytest.mark.parametrize("block", KEPT.values(), ids=KEPT)
def test_what_just_keeps_the_rules_passes(block):
    assert problems(block) == []


def test_the_loader_places_the_problems_of_the_network(errors_of):
    assert errors_of("nn.heads.value={kind: mlp}") == [
        "--set nn.heads.value: nn.heads.value: there is no value stream; set nn.heads.dueling: true or remove the key"
    ]


@pytest.mark.parametrize(
    ("block", "key"),
    [
        ({"vision": {"kind": "hf", "model": "x"}}, "nn.vision.kind"),
        (
            {"vector": MLP, "fusion": UNIFIED | {"trunk": {"kind": "hf_embedding", "model": "x"}}},
            "nn.fusion.trunk.kind",
        ),
    ],
)
def test_hugging_face_models_need_their_extra(block, key, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert problems(block) == [f'{key}: models of Hugging Face need transformers; install "tesserl-trainer[hf]"']
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert problems(block) == []


@pytest.mark.parametrize("option", ["dueling", "noisy", "advantage"])
def test_a_policy_has_no_options_of_quantiles(option):
    heads = {option: MLP if option == "advantage" else True}
    assert problems({"vector": MLP, "heads": heads}, "ppo") == [
        f"nn.heads.{option}: belongs to iqn, got algorithm ppo; remove the key"
    ]


@pytest.mark.parametrize("algorithm", ["ppo", "grpo", "dpo", "cpl"])
def test_shared_layers_are_a_part_of_the_heads_of_a_policy(algorithm):
    heads = {"hidden_sizes": [], "shared_hidden_sizes": [3], "layer_norm": True}
    block = {"vector": MLP, "heads": heads, "freeze": ["shared"]}
    assert problems(block, algorithm) == []
    network = NNConfig.model_validate(block)
    value = [] if algorithm == "grpo" else ["value"]
    assert nn_rules.parts_of(network, algorithm) == ["vector", "heads", "shared", "policy", *value]
    assert problems(block | {"learning_rate_factors": {"shared": 2}}, algorithm) == [
        "nn.learning_rate_factors.shared: shared is frozen by nn.freeze; remove one of the two"
    ]
    factors = {"freeze": [], "learning_rate_factors": {"shared": 2, "heads": 3}}
    assert problems(block | factors, algorithm) == [
        "nn.learning_rate_factors.heads: shared in it would have two factors; remove one of them"
    ]
    parts = ", ".join(["vector", "heads", "policy", *value])
    assert problems(block | {"heads": {"hidden_sizes": []}}, algorithm) == [
        f"nn.freeze.0: this network has no part shared; parts: {parts}"
    ]


def test_a_policy_and_its_value_are_parts():
    block = {"vector": MLP, "heads": {"policy": TRANSFORMER, "value": MLP}, "freeze": ["policy"]}
    assert problems(block, "ppo") == []
    assert nn_rules.parts_of(NNConfig.model_validate(block), "ppo") == ["vector", "heads", "policy", "value"]


def test_a_preset_fills_in_its_columns():
    vision = CNNVision(preset="compact")
    assert (vision.channels, vision.kernel_sizes, vision.strides) == ((16, 32, 64, 32), (4, 4, 3, 3), (2, 2, 2, 1))
    assert CNNVision.model_validate(vision.model_dump()) == vision


def test_a_trunk_that_reads_tokens_fills_in_their_number_and_width():
    block = {"vector": MLP, "fusion": {"kind": "vision_transformer", "trunk": {"kind": "mlp"}, "d_model": 7}}
    fusion = NNConfig.model_validate(block).fusion
    assert (fusion.d_model, fusion.num_tokens) == (7, 4)
    fusion = NNConfig.model_validate({"fusion": {"kind": "vision_transformer"}}).fusion
    assert (fusion.d_model, fusion.num_tokens) == (None, None)


def test_streams_are_multilayer_perceptrons_or_transformers():
    assert [block().kind for block in blocks_in(Stream)] == ["mlp", "transformer"]
