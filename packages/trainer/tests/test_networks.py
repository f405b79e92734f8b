"""From ``nn:`` and spaces to networks: widths, heads, frozen parts, learning rates of parts, running statistics."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from tesserl_configs import ConfigError, RunConfig, load_config
from tesserl_configs.nn import NNConfig
from tesserl_configs.vision import PRESETS
from tesserl_environments import ObservationLayout
from tesserl_nn_components import COMPACT_CNN, NATURE_CNN, RunningNormalizer, SpectralConv2d
from tesserl_trainer import train
from tesserl_trainer.algorithms.task import Task, build_network
from tesserl_trainer.networks.bodies import build_body
from tesserl_trainer.networks.building import (
    build_policy_network,
    build_quantile_network,
)
from tesserl_trainer.networks.named_parts import freeze_parts, learning_rate_groups
from tesserl_training.checkpoints.checkpoint import load_networks

RUN = {"total_steps": 1_000, "environment": {"id": "none"}, "algorithm": "iqn", "iqn": {"num_cosines": 7}}
MLP = {"kind": "mlp", "hidden_sizes": [9]}
RUNNING = MLP | {"normalization": {"kind": "running"}}
TINY_TRUNK = {"kind": "native_transformer", "num_layers": 1, "num_heads": 2, "dropout": 0.5}
FUSED = {
    "vision": {"kind": "impala", "channels": [3], "spectral_norm": "all"},
    "vector": RUNNING,
    "fusion": {"kind": "unified", "d_model": 6, "out_features": 11, "trunk": TINY_TRUNK},
    "heads": {"hidden_sizes": [7], "dueling": True},
}


def layout_of(image=None, vector=None):
    parts = {} if image is None else {"image": spaces.Box(0, 255, image, np.uint8)}
    parts |= {} if vector is None else {"vector": spaces.Box(-1, 1, (vector,))}
    return ObservationLayout(spaces.Dict(parts), channels="first")


def body_of(block, image=None, vector=None):
    with torch.device("meta"):
        return build_body(NNConfig.model_validate(block), layout_of(image, vector))


def quantile_network(block, image=(2, 8, 8), vector=5, num_blocks=None):
    return build_quantile_network(RunConfig(**RUN, nn=block), layout_of(image, vector), 3, num_blocks)


def policy_network(block, action_space, vector=5):
    return build_policy_network(NNConfig.model_validate(block), layout_of(vector=vector), action_space)


@pytest.mark.parametrize(
    ("vision", "size", "width"),
    [  # the seed system's own numbers
        ({"kind": "cnn", "preset": "compact"}, (64, 64), 512),
        ({"kind": "cnn", "preset": "compact"}, (84, 84), 1568),
        ({"kind": "cnn", "preset": "compact"}, (128, 128), 4608),
        ({"kind": "cnn", "preset": "compact"}, (120, 160), 5632),
        ({"kind": "impala"}, (64, 64), 2048),
        ({"kind": "impala", "width": 2}, (64, 64), 4096),
        ({"kind": "impala", "width": 2, "pool_size": 6}, (64, 64), 2304),
        ({"kind": "impala", "pool_size": 6}, (64, 64), 1152),
        ({"kind": "cnn"}, (84, 84), 3136),
        ({"kind": "vit", "patch_size": 16, "d_model": 384}, (64, 64), 384),
    ],
)
def test_image_features_have_the_known_widths(vision, size, width):
    assert body_of({"vision": vision}, (1, *size)).out_features == width


def test_state_features_have_the_known_widths():
    vector = {"kind": "mlp", "hidden_sizes": [256, 256]}
    compact, impala = {"kind": "cnn", "preset": "compact"}, {"kind": "impala", "width": 2, "pool_size": 6}
    assert body_of({"vision": compact, "vector": vector}, (1, 64, 64), 264).out_features == 768
    assert body_of({"vision": impala, "vector": vector}, (1, 64, 64), 264).out_features == 2560
    assert body_of({"vector": vector}, vector=264).out_features == 256


def test_a_convolution_and_raw_features_are_265_tokens():
    sequence = {"kind": "token_sequence", "vector_tokens": {"kind": "per_feature"}}
    fusion = {"kind": "post_concat", "d_model": 128, "layout": sequence}
    body = body_of(
        {"vision": {"kind": "impala"}, "vector": MLP | {"hidden_sizes": []}, "fusion": fusion}, (1, 64, 64), 264
    )
    assert (body.tokens.num_tokens, body.trunk.out_features) == (265, 128)


def test_presets_are_those_of_the_components():
    assert {"nature": NATURE_CNN, "compact": COMPACT_CNN} == PRESETS


@pytest.mark.parametrize("stream", ["mlp", "transformer"])
@pytest.mark.parametrize(
    ("space", "shapes"),
    [
        (spaces.Discrete(3), {"logits": (4, 3)}),
        (spaces.MultiDiscrete([6, 6]), {"logits": (4, 2, 6)}),
        (spaces.MultiDiscrete([2, 5, 3]), {"logits": (4, 10)}),
        (spaces.Box(-1, 1, (7,)), {"loc": (4, 7), "scale": (4, 7)}),
    ],
    ids=str,
)
def test_a_policy_returns_the_parameters_of_its_actions_and_a_value(space, shapes, stream):
    options = {"d_model": 4, "num_heads": 2, "hidden_features": 5} if stream == "transformer" else {}
    block = {"vector": MLP, "heads": {"policy": {"kind": stream, **options}, "layer_norm": True}}
    network = policy_network(block, space)
    assert network.in_keys == ["observation"]
    assert network.out_keys == [*shapes, "state_value"]
    outputs = dict(zip(network.out_keys, network(torch.randn(4, 5)), strict=True))
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {**shapes, "state_value": (4, 1)}


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3, start=1),
        spaces.MultiDiscrete([2, 3], start=[1, 0]),
        spaces.Box(0, 1, (2, 2)),
        spaces.MultiBinary(3),
    ],
    ids=str,
)
def test_actions_that_no_policy_has_are_refused(space):
    with pytest.raises(ConfigError, match=r"environment.id: a policy needs a Discrete or MultiDiscrete .* got "):
        policy_network({"vector": MLP}, space)


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("num_blocks", [None, 2])
@pytest.mark.parametrize("advantage", [None, {"kind": "transformer", "d_model": 4, "num_heads": 2}])
def test_quantiles_have_one_dimension_for_blocks(advantage, num_blocks, dueling):
    heads = {"advantage": advantage, "dueling": dueling, "noisy": True}
    network = quantile_network({"vector": MLP, "heads": heads}, image=None, num_blocks=num_blocks)
    blocks = () if num_blocks is None else (num_blocks,)
    inputs = torch.randn(4, 5), torch.rand(4, 6)
    quiet = network(*inputs)
    assert quiet.shape == (4, 6, *blocks, 3)
    network.reset_noise()
    assert not torch.equal(network(*inputs), quiet)


def test_options_of_the_heads_reach_their_layers():
    network = quantile_network({"vector": MLP, "heads": {"activation": "tanh", "layer_norm": True}}, image=None)
    assert [type(layer).__name__ for layer in network.head.layers] == ["Linear", "LayerNorm", "Tanh", "Linear"]
    network = quantile_network({"vector": MLP, "heads": {"dueling": True, "value": MLP, "noisy": True}}, image=None)
    assert [layer.out_features for layer in network.head.value.layers if hasattr(layer, "weight_mu")] == [9, 1]
    assert [layer.out_features for layer in network.head.advantage.layers if hasattr(layer, "weight_mu")] == [512, 3]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"vision": {"kind": "vit", "patch_size": 3}}, r"nn.vision.patch_size: patch_size must divide the image"),
        ({"vision": {"kind": "cnn"}}, r"nn.vision: layer 2 of the stack"),
        (
            {"vector": MLP | {"normalization": {"kind": "fixed", "mean": [0] * 4, "std": [1] * 4}}},
            r"nn.vector.normalization.mean: expected 5 numbers, one per feature, got 4",
        ),
        ({"vision": {"kind": "hf", "model": "/nowhere"}}, r"nn.vision: /nowhere cannot be used here: "),
        ({"vision": {"kind": "none"}}, r"nn.vision.kind: the task's observations hold pixels \(2, 8, 8\), got none"),
        ({"vector": {"kind": "none"}}, r"nn.vector.kind: the task's observations hold observation \(5,\), got none"),
    ],
)
def test_what_does_not_fit_the_task_is_refused_with_its_key(block, message):
    with pytest.raises(ConfigError, match=message):
        quantile_network({"vision": {"kind": "impala"}, "vector": MLP, **block})


def test_a_text_model_with_too_few_positions_is_refused(hf_models):
    trunk = {"kind": "hf_embedding", "model": hf_models["bert"]}
    fusion = {"kind": "unified", "num_vector_tokens": 33, "trunk": trunk}
    with pytest.raises(ConfigError, match=r"nn.fusion.trunk: .*bert cannot be used here: .* each of 33 tokens, got 32"):
        quantile_network({"vector": MLP, "fusion": fusion}, image=None)


def test_a_frozen_vision_model_leaves_its_projection_to_learn(hf_models):
    vision = {"kind": "hf", "model": hf_models["dinov2"], "out_features": 6, "frozen": True, "local_files_only": True}
    network = quantile_network({"vision": vision, "vector": MLP})
    learning = [name for name, p in network.body.vision.named_parameters() if p.requires_grad]
    assert learning == ["channels.weight", "project.1.weight", "project.1.bias"]


PARTS = {
    "vision": "body.vision.",
    "vector": "body.vector.",
    "fusion": ("body.tokens.", "body.trunk.", "body.bridge."),
    "trunk": "body.trunk.",
    "embedding": "embedding.",
    "heads": "head.",
    "advantage": "head.advantage.",
    "value": "head.value.",
}


def step(network, groups):
    """One step on random data; returns what stands in the optimiser."""
    optimizer = torch.optim.Adam(groups)
    pixels = torch.randint(256, (4, 2, 8, 8), dtype=torch.uint8)
    network(pixels, torch.randn(4, 5), torch.rand(4, 6)).square().sum().backward()
    optimizer.step()
    return set(optimizer.state)


@pytest.mark.parametrize("part", PARTS)
def test_a_frozen_part_has_no_gradient_no_optimiser_state_and_rests(part):
    torch.manual_seed(3)
    network = quantile_network({**FUSED, "freeze": [part]}).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    moved = step(network, learning_rate_groups(network, NNConfig().learning_rate_factors, 0.1))
    network.body.vector.normalizer.update(torch.randn(8, 5))
    for name, parameter in network.named_parameters():
        frozen = name.startswith(PARTS[part])
        assert (parameter.grad is None, parameter in moved) == (frozen, not frozen), name
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not [name for name in changed if name.startswith(PARTS[part])]
    assert any(name.endswith((".u", ".v")) for name in changed) == (part != "vision")  # power iterations
    assert ("body.vector.normalizer.mean" in changed) == (part != "vector")
    for name, module in network.named_modules():
        assert module.training != f"{name}.".startswith(PARTS[part]), name


def test_frozen_dropout_is_off():
    network = quantile_network({**FUSED, "freeze": ["trunk", "vision"]}).train()
    inputs = torch.zeros(2, 2, 8, 8, dtype=torch.uint8), torch.randn(2, 5)
    assert torch.equal(network.body(*inputs), network.body(*inputs))
    network = quantile_network({**FUSED, "freeze": ["vision"]}).train()
    assert not torch.equal(network.body(*inputs), network.body(*inputs))


@pytest.mark.parametrize("shared", [(), (6,)])
@pytest.mark.parametrize("part", ["policy", "value", "heads"])
def test_parts_of_a_policy_can_be_frozen(part, shared):
    block = {"vector": MLP, "heads": {"shared_hidden_sizes": shared}, "freeze": [part]}
    network = policy_network(block, spaces.Box(-1, 1, (2,)))
    frozen = {name.split(".")[0] for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == ({"policy", "value", *(["shared"] if shared else [])} if part == "heads" else {part})


def test_shared_layers_can_be_frozen_and_learn_at_a_rate_of_their_own():
    block = {"vector": MLP, "heads": {"hidden_sizes": [4], "shared_hidden_sizes": [6]}}
    network = policy_network({**block, "freeze": ["shared"]}, spaces.Discrete(3))
    assert {name.split(".")[0] for name, p in network.named_parameters() if not p.requires_grad} == {"shared"}
    network = policy_network(block, spaces.Discrete(3))
    for factors, expected in (
        ({"shared": 0.5}, {"shared": 0.5}),
        ({"heads": 2.0}, {"shared": 2.0, "policy": 2.0, "value": 2.0}),
        ({"shared": 0.5, "policy": 3.0}, {"shared": 0.5, "policy": 3.0}),
    ):
        config = NNConfig.model_validate({**block, "learning_rate_factors": factors})
        groups = learning_rate_groups(network, config.learning_rate_factors, 1.0)
        names = {parameter: name.split(".")[0] for name, parameter in network.named_parameters()}
        rates = {names[parameter]: group["lr"] for group in groups for parameter in group["params"]}
        assert rates == {"body": 1.0, "policy": 1.0, "value": 1.0, "shared": 1.0} | expected


@pytest.mark.parametrize(
    ("space", "width"),
    [
        (spaces.Discrete(3), 3),
        (spaces.MultiDiscrete([3, 3]), 6),
        (spaces.MultiDiscrete([3, 4]), 7),
        (spaces.Box(-1, 1, (2,)), 2),
    ],
)
def test_policy_and_value_share_hidden_layers(space, width):
    heads = {"hidden_sizes": [], "shared_hidden_sizes": [8, 6], "activation": "silu", "layer_norm": True}
    network = policy_network({"vector": MLP, "heads": heads}, space)
    kinds = [type(layer).__name__ for layer in network.shared.layers]
    assert kinds == ["Linear", "LayerNorm", "SiLU"] * 2
    sizes = [(each.in_features, each.out_features) for each in (network.policy.mlp, network.value.mlp)]
    assert sizes == [(6, width), (6, 1)]
    plain = policy_network({"vector": MLP, "heads": {"hidden_sizes": []}}, space)
    assert plain.shared is None
    assert not [name for name in plain.state_dict() if name.startswith("shared")]


def test_a_layer_that_both_heads_share_is_counted_once():
    """The seed system's own network for 64 x 64 pixels and 264 features, of 12 actions: two layers of 1024, shared."""
    block = {
        "vision": {"kind": "cnn", "preset": "compact", "activation": "leaky_relu"},
        "vector": {"kind": "mlp", "hidden_sizes": [256, 256]},
    }
    count = {}
    for name, heads in (
        ("shared", {"hidden_sizes": [], "shared_hidden_sizes": [1024, 1024]}),
        ("own", {"hidden_sizes": [1024, 1024]}),
    ):
        network = build_policy_network(
            NNConfig.model_validate({**block, "heads": heads}), layout_of((1, 64, 64), 264), spaces.Discrete(12)
        )
        count[name] = sum(parameter.numel() for parameter in network.parameters())
    body = 45_456 + (264 * 256 + 256) + (256 * 256 + 256)
    trunk = (768 * 1024 + 1024) + (1024 * 1024 + 1024)
    assert count["shared"] == body + trunk + (1024 * 12 + 12) + (1024 + 1)
    assert count["own"] == count["shared"] + trunk
    assert count["own"] / count["shared"] == pytest.approx(1.9, abs=0.05)


def test_options_of_the_embedding_and_of_pixels_reach_the_network():
    run = {**RUN, "iqn": {"num_cosines": 7, "cosine_start": 1, "cosine_activation": "leaky_relu"}}
    block = {"vision": {"kind": "impala", "channels": [3], "pixel_range": "centered"}}
    network = build_quantile_network(RunConfig(**run, nn=block), layout_of((2, 8, 8)), 3)
    assert (network.embedding.start, network.embedding.activation) == (1, "leaky_relu")
    assert network.body.vision.pixel_range == "centered"
    plain = build_quantile_network(RunConfig(**RUN, nn=block), layout_of((2, 8, 8)), 3)
    assert (plain.embedding.start, plain.embedding.activation) == (0, "relu")


def test_parts_learn_at_rates_of_their_own():
    factors = {"vision": 0.1, "fusion": 0.5, "value": 3.0}
    config = NNConfig.model_validate({**FUSED, "learning_rate_factors": factors})
    network = quantile_network(config.model_dump())
    groups = learning_rate_groups(network, config.learning_rate_factors, 0.01)
    names = {parameter: name for name, parameter in network.named_parameters()}
    rates = {names[parameter]: group["lr"] for group in groups for parameter in group["params"]}
    assert set(rates) == set(names.values())
    for name, rate in rates.items():
        part = next((part for part in factors if name.startswith(PARTS[part])), None)
        assert rate == pytest.approx(0.01 * factors.get(part, 1.0)), name


def test_a_schedule_keeps_the_factors(write_config):
    rate = "optimizer={kind: sgd, learning_rate: {kind: linear, knots: [[0, 0.4], [100, 0]]}}"
    config = load_config(write_config(), [rate, "nn.learning_rate_factors.vector=0.5"])
    network = build_quantile_network(config, layout_of(vector=4), 2)
    algorithm = Task(config).agent(network)
    [schedule] = [schedule for schedule in algorithm.schedules if schedule.name == "learning_rate"]
    for at, base in ((0, 0.4), (50, 0.2), (100, 0.0)):
        schedule.apply(schedule.value(at))
        rates = {group["name"]: group["lr"] for group in algorithm.optimizer.param_groups}
        assert rates == pytest.approx({"body.vector": base / 2, "rest": base})


def test_a_network_that_learns_nothing_is_refused():
    network = quantile_network(FUSED)
    freeze_parts(network, ["vision", "vector", "fusion", "embedding", "heads"])
    with pytest.raises(ConfigError, match=r"nn.freeze: every part is frozen, nothing is left to learn"):
        learning_rate_groups(network, NNConfig().learning_rate_factors, 0.01)


def test_running_statistics_are_those_of_the_observations_acted_on(write_config):
    config = load_config(write_config(), ["nn.vector.normalization.kind=running"])
    network = build_quantile_network(config, layout_of(vector=4), 2)
    algorithm = Task(config).agent(network)
    normalizer = network.body.vector.normalizer
    assert isinstance(normalizer, RunningNormalizer)
    seen = torch.randn(3, 8, 4)
    for observations in seen:
        algorithm.act(observations)
    torch.testing.assert_close(normalizer.mean, seen.flatten(0, 1).double().mean(0))
    assert normalizer.count == 24
    with algorithm.policy.greedy() as policy:  # as evaluations act
        policy.act(torch.randn(2, 4))
    assert normalizer.count == 24


@pytest.mark.parametrize("algorithm", ["iqn", "ppo"])
@pytest.mark.parametrize(
    ("size", "said", "expected"),
    [((32, 40), None, True), ((40, 31), None, False), ((31, 31), True, True), ((84, 84), False, False)],
)
def test_the_memory_format_of_convolutions_follows_the_size_of_pictures(algorithm, size, said, expected):
    run = {"total_steps": 2_000, "environment": {"id": "none"}, "algorithm": algorithm}
    block = {"vision": {"kind": "impala", "channels": [3]}, "heads": {"hidden_sizes": [7]}}
    config = RunConfig(**run, nn=block, channels_last=said)
    network = build_network(config, spaces.Box(0, 255, (2, *size), np.uint8), spaces.Discrete(3))
    weights = [parameter for parameter in network.parameters() if parameter.dim() == 4]
    assert len(weights) == 5
    # layers of one channel are in both formats
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights) == expected
    assert all(weight.is_contiguous() for weight in weights) != expected


def test_pictures_have_no_memory_format_where_there_are_none():
    network = build_network(RunConfig(**RUN, nn={"vector": MLP}), spaces.Box(-1, 1, (4,)), spaces.Discrete(3))
    assert network.body.out_features == 9


@pytest.mark.parametrize(("freeze", "share"), [("[]", 1), ("[vector]", 0)])
@pytest.mark.parametrize(
    ("algorithm", "overrides", "first", "second"),
    [
        ("iqn", (), "value_network_params.body", "target_value_network_params.body"),
        ("ppo", ("ppo.shared_body=false",), "body", "critic_body"),
    ],
)
def test_a_run_gathers_its_statistics_for_both_networks(
    write_config, tmp_path, algorithm, overrides, first, second, freeze, share
):
    overrides = [*overrides, "nn.vector.normalization.kind=running", f"nn.freeze={freeze}", "total_steps=60"]
    run_dir = train(load_config(write_config(algorithm=algorithm), overrides), run_dir=tmp_path / "run")
    state = load_networks(run_dir / "checkpoints/step_000000060")
    for name in ("count", "mean"):
        one, other = (state[f"{body}.vector.normalizer.{name}"] for body in (first, second))
        assert torch.equal(one, other)
        assert (one.abs() > 0).all() == bool(share)
    assert state[f"{first}.vector.normalizer.count"] == 60 * share


def test_policies_start_orthogonal_in_heads_and_in_encoders_of_layers():
    """Gains of PPO's authors: sqrt(2) in hidden layers, 0.01 for the policy, 1 for the value."""
    block = {"vector": {"kind": "mlp", "hidden_sizes": [9]}, "heads": {"hidden_sizes": []}}
    network = policy_network(block, spaces.Discrete(3))
    hidden, policy, value = (
        part.layers[0].weight for part in (network.body.vector.mlp, network.policy.mlp, network.value.mlp)
    )
    torch.testing.assert_close(hidden.T @ hidden, 2 * torch.eye(5))
    torch.testing.assert_close(policy @ policy.T, 0.01**2 * torch.eye(3))
    torch.testing.assert_close(value @ value.T, torch.eye(1))
    assert not any(parameter.any() for name, parameter in network.named_parameters() if name.endswith("bias"))


def test_orthogonal_initialisation_leaves_transformers_as_they_are():
    states = []
    for orthogonal in (False, True):
        torch.manual_seed(1)
        config = NNConfig.model_validate({**FUSED, "heads": {"hidden_sizes": [7]}})
        layout = layout_of(image=(2, 8, 8), vector=5)
        states.append(build_policy_network(config, layout, spaces.Discrete(3), orthogonal=orthogonal).state_dict())
    changed = {name for name, entry in states[0].items() if not torch.equal(entry, states[1][name])}
    assert {name.split(".")[1 if name.startswith("body") else 0] for name in changed} == {
        "vision", "vector", "policy", "value"
    }  # fmt: skip


def test_spectral_vectors_of_a_frozen_encoder_stay(tmp_path):
    network = quantile_network({**FUSED, "freeze": ["vision"]}).train()
    layers = [module for module in network.body.vision.modules() if isinstance(module, SpectralConv2d)]
    before = [layer.u.clone() for layer in layers]
    assert len(layers) == 5
    network.body(torch.randint(256, (2, 2, 8, 8), dtype=torch.uint8), torch.randn(2, 5))
    assert all(torch.equal(layer.u, u) for layer, u in zip(layers, before, strict=True))
