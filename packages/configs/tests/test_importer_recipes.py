"""The nine reference recipes of the seed system: what their files say of the network, and what it becomes."""

import importlib.util

import pytest
import yaml

from tesserl_configs import RunConfig, nn_rules
from tesserl_configs.importer import import_config
from tesserl_configs.nn import NNConfig

BTR = """\
btr: {use_munchausen: true, munchausen_alpha: 0.9, munchausen_entropy_tau: 0.03, munchausen_lo: -1.0,
      use_impala_cnn: true, impala_model_size: 2, use_adaptive_maxpool: true, adaptive_maxpool_size: 6,
      use_spectral_norm: true, use_layer_norm: true, use_noisy_linear: true, noisy_sigma0: 0.5}
"""
POLICY_NN = """\
nn:
  fusion_mode: none
  vis: {image_size: {width: 64, height: 64}, cnn: {use_impala_cnn: false}}
  float: {mlp: {hidden_dim: 256}}
  decoder: {dense_hidden_dimension: 1024, advantage: {freeze: false}}
"""
PER_FEATURE = """\
    post_concat_layout: token_sequence
    float_token_input: raw
    float_token_layout: per_feature
"""

RECIPES = {
    "default": f"""\
nn:
  vis: {{image_size: {{width: 64, height: 64}}, cnn: {{}}}}
  float: {{mlp: {{hidden_dim: 256}}}}
  iqn: {{embedding_dimension: 128, n: 8, k: 32, kappa: 0.005}}
  decoder: {{dense_hidden_dimension: 1024}}
  training: {{clip_grad_norm: 30, number_memories_trained_on_between_target_network_updates: 128}}
{BTR}
training: {{algorithm: iqn, batch_size: 4096, weight_decay_lr_ratio: 0.1}}
performance: {{gpu_collectors_count: 8}}
""",
    "btr": f"""\
nn:
  vis: {{image_size: {{width: 64, height: 64}}, cnn: {{}}}}
  iqn: {{embedding_dimension: 64}}
  decoder: {{dense_hidden_dimension: 512}}
  training: {{clip_grad_norm: 10}}
{BTR}
training: {{algorithm: iqn, batch_size: 4096, weight_decay_lr_ratio: 0, lr_schedule: [[0, 1e-4]],
           gamma_schedule: [[0, 0.997]]}}
memory: {{prio_alpha: 0, memory_size_schedule: [[0, [65_000, 20_000]], [5_000_000, [1_000_000, 200_000]]]}}
""",
    "btr_post_concat_cnn_transformer": f"""\
nn:
  fusion_mode: post_concat
  vis: {{image_size: {{width: 64, height: 64}}, cnn: {{use_impala_cnn: true, impala_model_size: 1}}}}
  encoder:
{PER_FEATURE}
    transformer: {{d_model: 128, n_layers: 2, n_heads: 4, dropout: 0.1}}
  decoder: {{dense_hidden_dimension: 512, value: {{transformer: {{d_model: 64}}}}}}
{BTR}
training: {{algorithm: iqn, batch_size: 2048}}
""",
    "ppo": f"{POLICY_NN}training: {{algorithm: ppo}}\nppo: {{clip_coef: 0.2, clip_coef_vf: 0.2}}\n",
    "ppo_cnn_mlp": f"{POLICY_NN}training: {{algorithm: ppo}}\n",
    "ppo_post_concat_cnn_tf": f"""\
nn:
  vis: {{cnn: {{}}}}
  encoder:
    fusion_mode: post_concat
{PER_FEATURE}
    transformer: {{d_model: 128, n_layers: 2, dropout: 0.1}}
training: {{algorithm: ppo}}
ppo: {{ent_coef: 0.001, max_grad_norm: 0.2}}
""",
    "ppo_transformer": f"""\
nn:
  fusion_mode: post_concat
  vis:
    freeze: true
    transformer: {{use_hf_backbone: true, model_name_or_path: timm/tinyclip, d_model: 384, n_layers: 0,
                  fusion_tokens: patch_tokens}}
  encoder:
{PER_FEATURE}
    transformer: {{d_model: 128}}
    fusion_encoder: hf_embedding
    hf_embedding: {{model_name_or_path: prajjwal1/bert-tiny}}
training: {{algorithm: ppo}}
""",
    "dpo": f"{POLICY_NN}training: {{algorithm: dpo}}\ndpo: {{dpo_beta: 0.5}}\n",
    "grpo": f"{POLICY_NN}training: {{algorithm: grpo}}\ngrpo: {{grpo_group_size: 128}}\n",
}


@pytest.fixture
def imported(write, monkeypatch):
    """The result of importing a recipe, its data, and its network as the rules of its algorithm pass it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)  # the extra is installed

    def read(recipe: str):
        result = import_config(write(RECIPES[recipe], f"config_{recipe}.yaml"), environment_id="Task-v0")
        data = yaml.safe_load(result.text)
        network = NNConfig.model_validate(data["nn"])
        assert list(nn_rules.check(network, data["algorithm"])) == []
        return result, data, network

    return read


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_carried_over_and_every_key_is_named(imported, recipe):
    result, data, _ = imported(recipe)
    to_mend = {note.key.removeprefix("to mend: ") for note in result.to_mend}
    assert to_mend <= {"environment.wrappers"}
    assert RunConfig.model_validate(data).algorithm == data["algorithm"]
    unknown = [str(note) for note in result.notes if "not a key of the seed system" in note.text]
    assert unknown == []


def test_the_default_recipe_is_impala_with_everything_of_beyond_the_rainbow(imported):
    _, data, network = imported("default")
    vision = network.vision
    assert (vision.kind, vision.width, vision.pool_size, vision.spectral_norm) == ("impala", 2, 6, "all")
    assert (network.vector.hidden_sizes, network.vector.layer_norm) == ((256, 256), True)
    heads = network.heads
    assert (heads.hidden_sizes, heads.dueling, heads.noisy, heads.layer_norm) == ((512,), True, True, True)
    config = RunConfig.model_validate(data)
    assert (config.iqn.num_cosines, config.iqn.batch_size, config.environment.num_envs) == (128, 4096, 8)
    assert (config.iqn.munchausen.clip, config.iqn.exploration.kind) == (-0.03, "noisy")


def test_the_btr_recipe_has_smaller_heads_and_constant_rates(imported):
    _, data, network = imported("btr")
    config = RunConfig.model_validate(data)
    assert (network.vision.kind, network.heads.hidden_sizes, config.iqn.num_cosines) == ("impala", (256,), 64)
    assert (config.iqn.discount, config.optimizer.weight_decay, config.replay.kind) == (0.997, 0, "uniform")
    assert (config.replay.capacity, config.replay.warmup_steps) == (1_000_000, 20_000)


def test_the_fused_recipe_is_one_image_token_and_one_for_each_raw_feature(imported):
    _, _, network = imported("btr_post_concat_cnn_transformer")
    fusion = network.fusion
    assert (fusion.kind, fusion.d_model, fusion.out_features) == ("post_concat", 128, 512)
    assert (fusion.layout.kind, fusion.layout.image_tokens, fusion.layout.vector_tokens.kind) == (
        "token_sequence",
        "summary",
        "per_feature",
    )
    trunk = fusion.trunk
    assert (trunk.kind, trunk.num_layers, trunk.num_heads, trunk.dropout, trunk.norm) == (
        "native_transformer",
        2,
        4,
        0.1,
        "post",
    )
    assert network.vector.hidden_sizes == ()
    assert (network.vision.kind, network.vision.width) == ("impala", 1)  # what the block says goes before btr
    assert not network.vector.layer_norm  # there, that of the float path is for the classic network only
    assert (network.heads.value.kind, network.heads.value.d_model, network.heads.value.hidden_features) == (
        "transformer",
        64,
        256,
    )
    assert (network.heads.advantage.kind, network.heads.advantage.hidden_sizes) == ("mlp", (256,))


@pytest.mark.parametrize("recipe", ["ppo", "ppo_cnn_mlp", "dpo", "grpo"])
def test_recipes_of_policies_are_a_small_convolutional_network(imported, recipe):
    _, _, network = imported(recipe)
    assert (network.vision.preset, network.vision.activation) == ("compact", "leaky_relu")
    assert (network.vector.hidden_sizes, network.vector.activation) == ((256, 256), "relu")
    heads = network.heads
    assert (heads.shared_hidden_sizes, heads.hidden_sizes, heads.dueling) == ((1024, 1024), (), False)


def test_a_fusion_mode_below_the_encoder_counts_too(imported):
    _, _, network = imported("ppo_post_concat_cnn_tf")
    assert (network.fusion.kind, network.fusion.trunk.dropout) == ("post_concat", 0.1)


def test_the_pretrained_recipe_names_both_models_and_freezes_one(imported):
    _, _, network = imported("ppo_transformer")
    assert (network.vision.model, network.vision.out_features, network.vision.refine_layers) == (
        "timm/tinyclip",
        384,
        0,
    )
    assert (network.fusion.layout.image_tokens, network.fusion.layout.vector_tokens.kind) == ("all", "per_feature")
    assert (network.fusion.trunk.kind, network.fusion.trunk.model) == ("hf_embedding", "prajjwal1/bert-tiny")
    assert network.freeze == ("vision",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "{fusion_mode: vision_transformer, vis: {cnn: {}}}",
            {"kind": "vision_transformer", "vision_features": 256, "out_features": 1024, "trunk": {"kind": "linear"}},
        ),
        (
            "{fusion_mode: vision_transformer, vis: {no_image: true}, encoder: {fusion_encoder: cnn, "
            "transformer: {post_concat_seq_len: 6}}}",
            {
                "kind": "vision_transformer",
                "out_features": 1024,
                "d_model": 256,
                "num_tokens": 6,
                "trunk": {"kind": "cnn", "channels": [256, 256], "kernel_size": 3, "dropout": 0.0},
            },
        ),
        (
            "{fusion_mode: post_concat, encoder: {fusion_encoder: mlp, fusion_mlp: {hidden_dim: 64, n_layers: 3}}}",
            {
                "kind": "post_concat",
                "out_features": 1024,
                "d_model": 256,
                "layout": {"kind": "fused_vector", "num_tokens": 4},
                "trunk": {"kind": "mlp", "hidden_sizes": [64, 64], "dropout": 0.0},
            },
        ),
        (
            "{fusion_mode: unified, vis: {transformer: {d_model: 128, patch_size: 4, n_layers: 3}}, "
            "encoder: {transformer: {d_model: 128, unified_float_tokens: 3, use_hf_backbone: true, "
            "model_name_or_path: bert}}}",
            {
                "kind": "unified",
                "out_features": 1024,
                "d_model": 128,
                "num_vector_tokens": 3,
                "trunk": {"kind": "hf_embedding", "model": "bert", "trust_remote_code": False, "dropout": 0.0},
            },
        ),
    ],
)
def test_each_fusion_mode_has_its_counterpart(write, monkeypatch, text, expected):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    network = yaml.safe_load(import_config(write(f"nn: {text}\ntraining: {{algorithm: iqn}}\n")).text)["nn"]
    assert network["fusion"] == expected
    if network["fusion"]["kind"] == "unified":  # no encoder of its own on either side
        assert (network["vision"]["num_layers"], network["vision"]["patch_size"]) == (0, 4)
        assert network["vector"]["hidden_sizes"] == []
    NNConfig.model_validate(network)


def test_frozen_parts_have_their_names(write):
    text = """\
nn: {fusion_mode: unified, vis: {freeze: true}, float: {freeze: true}, encoder: {freeze: true}, iqn: {freeze: true},
     decoder: {advantage: {freeze: true}, value: {freeze: false}, shared_trunk_freeze: true}}
"""
    result = import_config(write(text))
    assert yaml.safe_load(result.text)["nn"]["freeze"] == ["vision", "vector", "fusion", "embedding", "advantage"]
    ignored = "nn.decoder.shared_trunk_freeze: iqn has no such layers, and the seed system ignores it there"
    assert ignored in map(str, result.notes)
    policy = import_config(write(text.replace("nn:", "training: {algorithm: ppo}\nnn:")))
    assert yaml.safe_load(policy.text)["nn"]["freeze"] == ["vision", "vector", "fusion", "shared", "policy"]


def test_convolution_flags_of_btr_count_only_beside_the_block_that_they_fill(write):
    text = "btr: {use_impala_cnn: true, impala_model_size: 3}\nnn: {vis: CNN}\n"
    with_block = yaml.safe_load(import_config(write(text.replace("CNN", "{cnn: {}}"))).text)["nn"]["vision"]
    assert (with_block["kind"], with_block["width"]) == ("impala", 3)
    result = import_config(write(text.replace("CNN", "{freeze: false}")))
    assert yaml.safe_load(result.text)["nn"]["vision"]["preset"] == "compact"
    assert "btr.use_impala_cnn: read only beside nn.vis.cnn, be it empty, which the file does not have" in map(
        str, result.notes
    )
