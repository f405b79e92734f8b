"""``tesserl topologies`` and ``tesserl config show --shapes``."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from gymnasium import spaces

from tesserl_configs import RunConfig, load_config
from tesserl_environments import ObservationLayout
from tesserl_trainer.cli import main
from tesserl_trainer.inspect.shapes import network_layers
from tesserl_trainer.inspect.topologies import _hf_options, count_parameters, describe, flow
from tesserl_trainer.networks import topology_cells as topologies
from tesserl_trainer.networks.building import build_policy_network, build_quantile_network

pytestmark = pytest.mark.kernel_free

RUN = {"total_steps": 1_000, "environment": {"id": "none"}, "algorithm": "iqn"}


@pytest.fixture(scope="module")
def report():
    return describe((1, 40, 48), 5, 3)


def test_every_cell_is_in_the_table_once(report):
    assert (len(report["cells"]), report["refused"], report["duplicates"]) == (1040, [], 160)
    keys = [
        tuple(cell[name] for name in ("family", "fusion", "vision", "trunk", "streams")) for cell in report["cells"]
    ]
    assert len(set(keys)) == 1040
    assert Counter(cell["vision"] for cell in report["cells"]) == dict.fromkeys(
        ("none", "cnn", "impala", "vit", "hf"), 208
    )


@pytest.mark.parametrize(
    ("family", "fusion", "vision", "trunk", "streams"),
    [
        ("quantile", "none", "vit", "linear", ("mlp", "transformer")),
        ("quantile", "post_concat/token_sequence/per_feature", "hf", "cnn", ("transformer", "mlp")),
        ("policy", "unified", "impala", "hf_embedding", ("transformer", "transformer")),
        ("policy", "vision_transformer", "none", "mlp", ("mlp", "mlp")),
    ],
)
def test_its_numbers_are_those_of_the_network_itself(report, tmp_path, family, fusion, vision, trunk, streams):
    cell = topologies.Cell(family, fusion, vision, trunk, streams)
    options = _hf_options(tmp_path)
    vector, image = spaces.Box(-1, 1, (5,)), spaces.Box(0, 255, (1, 40, 48), np.uint8)
    space = vector if vision == "none" else spaces.Dict(image=image, vector=vector)
    layout = ObservationLayout(space, channels="first")
    with torch.device("meta"):
        if family == "policy":
            network = build_policy_network(cell.config(options), layout, spaces.Discrete(3))
        else:
            network = build_quantile_network(RunConfig(**RUN, nn=cell.block(options)), layout, 3)
    [row] = [
        row
        for row in report["cells"]
        if (row["family"], row["fusion"], row["vision"], row["trunk"] or "linear", row["streams"])
        == (family, fusion, vision, trunk, streams)
    ]
    assert row["parameters"] == count_parameters(network)
    assert row["body_parameters"] == count_parameters(network.body)
    assert (row["features"], row["flow"]) == (network.body.out_features, flow(network.body))


@pytest.mark.parametrize(
    ("fusion", "vision", "trunk", "expected"),
    [
        ("none", "vit", None, "image 256 + vector 64 -> 320"),
        ("unified", "vit", "mlp", "image 30 x 256 + vector 64 -> 31 tokens of 256 -> 256 -> 512"),  # (40 / 8)(48 / 8)
        ("vision_transformer", "none", "linear", "vector 64 -> 512"),
        ("post_concat/fused_vector", "none", "cnn", "vector 64 -> 4 tokens of 256 -> 256 -> 512"),
        ("unified", "hf", "linear", "image 197 x 192 + vector 64 -> 198 tokens of 256 -> 256 -> 512"),
    ],
)
def test_the_flow_says_what_becomes_of_the_inputs(report, fusion, vision, trunk, expected):
    flows = {
        row["flow"]
        for row in report["cells"]
        if (row["fusion"], row["vision"], row["trunk"]) == (fusion, vision, trunk)
    }
    assert flows == {expected}


def test_a_network_that_does_not_fit_is_refused_with_its_key(capsys):
    assert main(["topologies", "--image", "1,20,20", "--vector", "3", "--actions", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    refused = [line for line in lines if line.startswith("refused: ")]
    assert len(refused) == 26 * 2  # 26 bodies of each encoder: the image is too small for cnn, not divided by vit
    assert "refused: none, cnn, None: nn.vision: layer 4 of the stack" in refused[0]
    assert sum("nn.vision.patch_size: patch_size must divide the image" in line for line in refused) == 26
    assert sum(line.startswith(("none ", "unified ", "post_concat", "vision_transformer ")) for line in lines) == 26 * 3


@pytest.mark.parametrize("image", ["1,64", "a,b,c", "0,64,64"])
def test_sizes_that_are_none_are_wrong_usage(image, capsys):
    assert main(["topologies", "--image", image]) == 2
    assert "expected" in capsys.readouterr().err


def test_shapes_are_those_of_a_real_forward_pass(write_config, capsys):
    path = write_config("MinAtar/Breakout-v1")
    assert main(["config", "show", "--shapes", str(path), "--set", "nn.freeze=[vision]"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["layer", "kind", "input", "output", "parameters"],
        *(line.split() for line in [
            "body.vision.conv.layers.0 Conv2d 2 x 4 x 10 x 10 2 x 5 x 8 x 8 185 frozen",  # 5 (4 * 9 + 1)
            "body.vision.conv.layers.1 ReLU 2 x 5 x 8 x 8 2 x 5 x 8 x 8 0",
            "body.vision.head Identity 2 x 320 2 x 320 0",
            "embedding CosineEmbedding 2 x 4 2 x 4 x 320 2,560",  # 320 (7 + 1)
            "head.layers.0 Linear 2 x 4 x 320 2 x 4 x 11 3,531",
            "head.layers.1 ReLU 2 x 4 x 11 2 x 4 x 11 0",
            "head.layers.2 Linear 2 x 4 x 11 2 x 4 x 3 36",
            "6,312 parameters, 6,127 of them learn; a batch of 2",
        ]),
    ]  # fmt: skip


def test_shapes_as_json_hold_every_parameter(write_config, capsys):
    fusion = "nn.fusion={kind: post_concat, d_model: 6, trunk: {kind: native_transformer, num_heads: 2, pooling: cls}}"
    path = write_config()
    assert main(["config", "show", "--shapes", "--json", str(path), "--set", fusion]) == 0
    layers = json.loads(capsys.readouterr().out)
    config = load_config(path, [fusion])
    built = build_quantile_network(config, ObservationLayout(spaces.Box(-1, 1, (4,))), 2)
    assert sum(layer["parameters"] for layer in layers) == count_parameters(built)
    tokens = next(layer for layer in layers if layer["name"] == "body.tokens.linear")
    assert (tokens["inputs"], tokens["output"]) == ("2 x 5", "2 x 24")  # four tokens of six
    assert network_layers(config)[0].name == "body.vector.mlp.layers.0"


def test_shapes_of_a_network_that_does_not_fit_name_the_key(write_config, capsys):
    path = write_config("MinAtar/Breakout-v1")
    assert main(["config", "show", "--shapes", str(path), "--set", "nn.vision={kind: vit, patch_size: 3}"]) == 2
    assert "nn.vision.patch_size: patch_size must divide the image, got patch_size=3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "override", "expected"),
    [
        (
            "CartPole-v1",
            "nn.memory={kind: lstm, hidden_size: 7, num_layers: 3}",
            [
                "body.body.vector.mlp.layers.0 Linear 2 x 4 2 x 5 25",
                "body.body.vector.mlp.layers.1 ReLU 2 x 5 2 x 5 0",
                # 28 (5 + 9) + 2 * 28 (7 + 9)
                "body.memory LSTM 2 x 5, 2 x 3 x 7, 2 x 3 x 7 2 x 7, 2 x 3 x 7, 2 x 3 x 7 1,288",
                "policy.mlp.layers.0 Linear 2 x 7 2 x 11 88",
                "policy.mlp.layers.1 ReLU 2 x 11 2 x 11 0",
                "policy.mlp.layers.2 Linear 2 x 11 2 x 2 24",
                "value.mlp.layers.0 Linear 2 x 7 2 x 11 88",
                "value.mlp.layers.1 ReLU 2 x 11 2 x 11 0",
                "value.mlp.layers.2 Linear 2 x 11 2 x 1 12",
                "1,525 parameters, 1,525 of them learn; a batch of 2",
            ],
        ),
        (
            "Pendulum-v1",
            "ppo={distribution: {kind: tanh_normal}, shared_body: false, num_steps: 10, num_minibatches: 3}",
            [
                "body.vector.mlp.layers.0 Linear 2 x 3 2 x 5 20",
                "body.vector.mlp.layers.1 ReLU 2 x 5 2 x 5 0",
                "critic_body.vector.mlp.layers.0 Linear 2 x 3 2 x 5 20",
                "critic_body.vector.mlp.layers.1 ReLU 2 x 5 2 x 5 0",
                "value.mlp.layers.0 Linear 2 x 5 2 x 11 66",
                "value.mlp.layers.1 ReLU 2 x 11 2 x 11 0",
                "value.mlp.layers.2 Linear 2 x 11 2 x 1 12",
                "policy.mlp.layers.0 Linear 2 x 5 2 x 11 66",
                "policy.mlp.layers.1 ReLU 2 x 11 2 x 11 0",
                "policy.mlp.layers.2 Linear 2 x 11 2 x 1 12",
                "policy GaussianHead 2 x 5 2 x 1, 2 x 1 1",
                "197 parameters, 197 of them learn; a batch of 2",
            ],
        ),
    ],
    ids=["memory", "continuous"],
)
def test_shapes_of_a_policy(write_config, capsys, environment, override, expected):
    path = write_config(environment, "ppo")
    assert main(["config", "show", "--shapes", str(path), "--set", override]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:]] == [line.split() for line in expected]
