"""Releases of the seed system, all their keys, and files that are not the seed system's."""

import re
from pathlib import Path

import pytest
import yaml

from tesserl_configs import ConfigError, load_config
from tesserl_configs.importer import import_config
from tesserl_configs.importer.catalogue import ANY, FLAG, KEYS, KNOTS, NUMBER, OLDER, SIZES, TEXT, WHOLE

CONFIGS = Path(__file__).parents[3] / "configs"
SAMPLES = {FLAG: True, WHOLE: 64, NUMBER: 0.25, TEXT: "word", KNOTS: [[0, 0.5], [9, 0.25]], SIZES: [32, 64], ANY: 1}
OLD = """\
training: {batch_size: 128}
neural_network:
  w_downsized: 96
  h_downsized: 80
  float_hidden_dim: 128
  dense_hidden_dimension: 384
  iqn_embedding_dimension: 48
  iqn_n: 6
  iqn_k: 30
  iqn_kappa: 0.01
  use_ddqn: false
  clip_grad_value: 1000
  clip_grad_norm: 12
  number_memories_trained_on_between_target_network_updates: 256
  soft_update_tau: 0.05
  target_self_loss_clamp_ratio: 3
  use_jit: false
  use_iqn_image_head: true
btr: {use_impala_cnn: true, impala_model_size: 3, use_adaptive_maxpool: true, adaptive_maxpool_size: 5,
      use_spectral_norm: true}
"""
NEW = """\
training: {batch_size: 128}
nn:
  vis: {image_size: {width: 96, height: 80}, cnn: {}}
  float: {mlp: {hidden_dim: 128}}
  decoder: {dense_hidden_dimension: 384}
  iqn: {embedding_dimension: 48, n: 6, k: 30, kappa: 0.01}
  training: {use_ddqn: false, clip_grad_value: 1000, clip_grad_norm: 12, soft_update_tau: 0.05, use_jit: false,
             number_memories_trained_on_between_target_network_updates: 256, target_self_loss_clamp_ratio: 3}
btr: {use_impala_cnn: true, impala_model_size: 3, use_adaptive_maxpool: true, adaptive_maxpool_size: 5,
      use_spectral_norm: true}
"""


def lines(result) -> list[str]:
    return [str(note) for note in result.notes]


def nested(values: dict) -> str:
    data: dict = {}
    for path, value in values.items():
        *blocks, key = path.split(".")
        inner = data
        for block in blocks:
            inner = inner.setdefault(block, {})
        inner[key] = value
    return yaml.safe_dump(data)


# --- older releases ----------------------------------------------------------------------------------------------


def test_the_network_of_an_older_release_is_carried_over(write):
    result = import_config(write(OLD), environment_id="Task-v0")
    config = load_config(write(result.text, "ours.yaml"))
    vision, heads, iqn = config.nn.vision, config.nn.heads, config.iqn
    assert (vision.kind, vision.width, vision.pool_size, vision.spectral_norm) == ("impala", 3, 5, "all")
    assert (config.nn.vector.hidden_sizes, heads.hidden_sizes) == ((128, 128), (384 // 2,))
    assert (iqn.num_cosines, iqn.num_taus, iqn.num_policy_taus, iqn.kappa) == (48, 6, 30, 0.01)
    assert (iqn.double, iqn.compile, iqn.self_loss_clamp_ratio) == (False, False, 3)
    assert (iqn.target_update.rate, iqn.target_update.interval) == (0.05, 256 // 128)
    assert iqn.max_grad_norm == pytest.approx(12 / 128)
    assert {
        "neural_network.iqn_embedding_dimension -> iqn.num_cosines",
        "neural_network.use_iqn_image_head -> nn.vision.kind (none without an image)",
        "neural_network.clip_grad_norm -> iqn.max_grad_norm (12 / 128: its loss is a sum over the batch)",
        "btr.use_impala_cnn -> nn.vision.kind",
    } <= set(lines(result))
    assert not [line for line in lines(result) if "not a key" in line]


def test_older_and_newer_names_of_one_network_give_one_file(write):
    old, new = (import_config(write(text), environment_id="Task-v0") for text in (OLD, NEW))
    assert old.text == new.text
    assert [str(note) for note in old.to_mend] == [str(note) for note in new.to_mend]
    assert yaml.safe_load(old.text)["environment"]["wrappers"] == [
        {"kind": "resize", "height": 80, "width": 96},
        {"kind": "clock"},
    ]
    assert {
        "neural_network.h_downsized -> environment.wrappers, height of resize",
        "neural_network.w_downsized -> environment.wrappers, width of resize",
    } <= set(lines(old))


def test_an_older_release_without_an_image(write):
    result = import_config(write("neural_network: {use_iqn_image_head: false}\n"))
    network = yaml.safe_load(result.text)["nn"]
    assert (network["vision"], network["vector"]["hidden_sizes"]) == ({"kind": "none"}, [256, 256])
    assert not [note for note in result.to_mend if note.key.endswith("environment.wrappers")]


def test_switches_of_btr_need_no_other_block_in_an_older_release(write):
    switches = "btr: {use_impala_cnn: true, use_layer_norm: true}\n"
    network = yaml.safe_load(import_config(write(f"neural_network: {{}}\n{switches}")).text)["nn"]
    assert (network["vision"]["kind"], network["heads"]["layer_norm"]) == ("impala", True)


def test_parts_that_an_older_release_freezes(write):
    freezes = {"encoder": "vision", "float_head": "vector", "iqn_fc": "embedding", "actions_head": "advantage"}
    text = "training: {" + ", ".join(f"pretrain_{key}_freeze: true" for key in freezes) + "}\n"
    old = import_config(write(f"{text}neural_network: {{}}\n"))
    assert yaml.safe_load(old.text)["nn"]["freeze"] == list(freezes.values())
    assert "training.pretrain_iqn_fc_freeze -> nn.freeze (embedding)" in lines(old)
    new = import_config(write(f"{text}nn: {{}}\n"))
    assert yaml.safe_load(new.text)["nn"]["freeze"] == []
    reason = "read by older releases alone, those with neural_network; newer ones ignore it"
    assert f"training.pretrain_iqn_fc_freeze: {reason}" in lines(new)
    value = import_config(write("training: {pretrain_V_head_freeze: true}\nneural_network: {}\n"))
    assert yaml.safe_load(value.text)["nn"]["freeze"] == ["value"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "nn: {}\nneural_network: {}\n",
            "x.yaml:2: neural_network: only older releases of the seed system read it, and only newer ones nn; remove "
            "one of the two",
        ),
        (
            "neural_network: {}\ntraining: {algorithm: ppo}\n",
            "x.yaml:1: neural_network: releases of the seed system that read it have iqn alone, got training.algorithm "
            "ppo",
        ),
        (
            "nn:\n  vis:\n    cnn: {}\n    transformer: {}\n",
            "x.yaml:4: nn.vis.transformer: the seed system refuses it beside nn.vis.cnn; remove one of the two",
        ),
        (
            "nn:\n  decoder:\n    value:\n      mlp: {}\n      transformer_encoder: {}\n",
            "x.yaml:5: nn.decoder.value.transformer_encoder: the seed system refuses it beside nn.decoder.value.mlp; "
            "remove one of the two",
        ),
        (
            "nn: {decoder: {value: {transformer: {use_hf_backbone: true}}}}\n",
            "x.yaml:1: nn.decoder.value.transformer.use_hf_backbone: the seed system refuses it here; set it to false",
        ),
        (
            "nn:\n  fusion_mode: none\n  encoder: {fusion_mode: unified}\n",
            "x.yaml:3: nn.encoder.fusion_mode: the seed system refuses unified here beside nn.fusion_mode: none; "
            "remove one",
        ),
    ],
)
def test_what_the_seed_system_does_not_allow_together_is_refused(write, text, message):
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        import_config(path)
    assert str(caught.value) == message.replace("x.yaml", str(path))


def test_values_are_read_as_the_seed_system_reads_them(write):
    """YAML 1.1 by PyYAML, then pydantic: words for truth, octal numbers, numbers in quotes."""
    text = """\
nn: {vis: {no_image: yes}, training: {use_ddqn: no, use_jit: "off"}, iqn: {n: 010, k: "32", kappa: 1e-2}}
"""
    ours = yaml.safe_load(import_config(write(text)).text)
    iqn = ours["iqn"]
    assert (ours["nn"]["vision"]["kind"], iqn["double"], iqn["compile"]) == ("none", False, False)
    assert (iqn["num_taus"], iqn["num_policy_taus"], iqn["kappa"]) == (8, 32, 0.01)


# --- every key ---------------------------------------------------------------------------------------------------


def is_older(key: str) -> bool:
    return bool(key.startswith(OLDER) or re.match(r"training\.pretrain_\w+_freeze", key))


EVERY_KEY = [
    (key, algorithm)
    for algorithm in ("iqn", "ppo", "dpo", "grpo")
    for key in KEYS
    if key != "training.algorithm"
    and (algorithm == "iqn" or not is_older(key))
    and (algorithm in ("iqn", "ppo") or key.partition(".")[0] in ("dpo", "grpo", "training"))
]


@pytest.mark.parametrize(("key", "algorithm"), EVERY_KEY)
def test_every_key_has_a_place_or_a_reason(write, key, algorithm):
    form = KEYS[key]
    sample = form[-1] if isinstance(form, tuple) else SAMPLES[form]
    if key.endswith("memory_size_schedule"):
        sample = [[0, [500, 400]]]
    values = {"training.algorithm": algorithm, key: sample}
    if is_older(key):
        values.setdefault(f"{OLDER}.iqn_n", 8)
    if key.endswith("use_hf_backbone"):
        values[key] = False
    result = import_config(write(nested(values)), environment_id="Task-v0")
    notes = [str(note) for note in result.notes if note.key == key]
    assert notes
    assert not [note for note in notes if "not a key" in note]
    for wanted in re.findall(r"`(to mend: [\w.]+)`", " ".join(notes)):  # a reason that names one is followed by it
        assert [note for note in result.to_mend if note.key.startswith(wanted)], notes


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("training.batchsize", "training.batch_size"),
        ("training.memory.prio_alpha", "memory.prio_alpha"),  # a block in the wrong place
        ("nn.vis.use_impala_cnn", "nn.vis.cnn.use_impala_cnn"),
        ("normalization.waypoint_mean_40cp", "state_normalization.waypoint_mean_40cp"),
        ("use_ddqn", "nn.training.use_ddqn"),
    ],
)
def test_a_key_that_the_seed_system_ignores_is_said_with_the_nearest_one(write, key, hint):
    result = import_config(write(nested({key: 1, "training.n_steps": 3})))
    assert f"{key}: not a key of the seed system, which ignores such keys; did you mean {hint}?" in lines(result)


def test_a_null_is_as_if_the_key_were_not_there(write):
    result = import_config(
        write("training: {pretrain_encoder_path: null, batch_size: null}\nppo: {clip_coef_vf: null}\n")
    )
    null = "null: the seed system's default, as if the key were not there"
    assert {f"{key}: {null}" for key in ("training.pretrain_encoder_path", "training.batch_size")} <= set(lines(result))
    assert yaml.safe_load(result.text)["iqn"]["batch_size"] == 512


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "state_normalization: {waypoint_mean_40cp: [0.0]}\n",
            "state_normalization.waypoint_mean_40cp: statistics of the game's observations; see `to mend: "
            "nn.vector.normalization`",
        ),
        (
            "map_cycle: {entries: []}\n",
            "map_cycle.entries: the maps that the game plays in turn; here the environment chooses what is played",
        ),
        (
            "inputs: {actions: [{left: false}]}\n",
            "inputs.actions: the actions of the game; the action space of your task takes their place",
        ),
        ("user: {username: me}\n", "user.username: the seed system reads it from its .env file, not from here"),
        (
            "performance: {running_speed: 32}\n",
            "performance.running_speed: about the client of the game that the seed system plays",
        ),
        (
            "training: {min_horizon_to_update_priority_actions: 5}\n",
            "training.min_horizon_to_update_priority_actions: the seed system computes it when it loads a file; a "
            "value in the file has no effect",
        ),
        (
            'training: {pretrain_encoder_path: ""}\n',
            "training.pretrain_encoder_path: empty, so nothing is loaded before training",
        ),
        (
            "nn: {training: {single_reset_flag: 1}}\n",
            "nn.training.single_reset_flag: compared with itself, as the file is read once: it never resets anything",
        ),
    ],
)
def test_the_reason_is_true(write, text, line):
    assert line in lines(import_config(write(text)))


# --- what is to be mended ----------------------------------------------------------------------------------------

NOISY = "btr: {use_noisy_linear: true}\n"
FLOATS = "nn: {vis: {no_image: true}}\n"


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (
            "exploration: {epsilon_boltzmann_schedule: [[0, 0.2], [9, 0.1]]}\n",
            "iqn.exploration",
            "(0.2, in the end 0.1",
        ),
        ("training: {n_steps: 3}\n", "iqn.exploration", "(0.15, in the end 0.03)"),  # its defaults
        (f"{NOISY[:-2]}, noisy_sigma0: 0.25}}\n", "nn.heads.noisy", "begins at 0.25 there and at 0.5 here"),
        ("nn: {training: {clip_grad_value: 2}}\n", "iqn.max_grad_norm", "clipped to 2 too, behind the norm of 30"),
        (
            "training: {pretrain_bc_heads_path: out/bc}\n",
            "initial_weights",
            "training starts from out/bc (training.pretrain_bc_heads_path)",
        ),
        (
            "training: {algorithm: ppo, pretrain_ppo_policy_path: out/bc}\n",
            "initial_weights",
            "training starts from out/bc (training.pretrain_ppo_policy_path)",
        ),
        (
            "training: {algorithm: grpo}\nnn: {fusion_mode: unified, init_from_pretrained: hub}\n",
            "initial_weights",
            "training starts from hub (nn.init_from_pretrained)",
        ),
        (
            "training: {algorithm: ppo}\nnn: {vis: {transformer: {}}}\n",
            "nn.vision.kind",
            "drops the image of a policy without fusion",
        ),
        ("nn: {vis: {transformer: {}}}\n", "nn.vision.kind", "cannot build iqn with it"),
        (
            "nn: {vis: {transformer: {use_hf_backbone: true, model_name_or_path: x, d_model: 40}}}\n",
            "nn.vector.hidden_sizes",
            "a linear layer of width 40 follows these layers there",
        ),
        ("state_normalization: {}\n", "nn.vector.normalization", "statistics of the game"),
        ("nn: {}\n", "environment.wrappers", "images have one grey channel there"),
    ],
)
def test_what_changes_the_experiment_and_has_no_place_is_to_be_mended(write, text, place, words):
    result = import_config(write(text), environment_id="Task-v0")
    [note] = [str(note) for note in result.to_mend if note.key == f"to mend: {place}"]
    assert words in note


def test_a_file_of_which_everything_is_carried_over_leaves_nothing_to_mend(write):
    result = import_config(write(FLOATS + NOISY), environment_id="Task-v0")
    assert (result.to_mend, result.lost, result.loads) == ([], [], True)
    assert load_config(write(result.text, "ours.yaml")).iqn.exploration.kind == "noisy"
    assert [str(note) for note in import_config(write(FLOATS + NOISY)).to_mend] == [
        "to mend: environment.id: write the Gymnasium id of your task there"
    ]


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("training: {n_steps: 3}\n", []),  # exploration differs by its default, by no key of the file
        ("exploration: {tau_epsilon_boltzmann: 0.02}\n", ["exploration.tau_epsilon_boltzmann"]),
        ("exploration: {tau_epsilon_boltzmann: 0}\n", []),
        ("state_normalization: {waypoint_mean_40cp: [0.0]}\n", ["state_normalization.waypoint_mean_40cp"]),
        ("neural_network: {clip_grad_value: 2}\n", ["neural_network.clip_grad_value"]),
        ("btr: {use_noisy_linear: true, noisy_sigma0: 0.25}\n", ["btr.noisy_sigma0"]),
        ("btr: {use_noisy_linear: true, noisy_sigma0: 0.5}\n", []),
        ("training: {pretrain_bc_heads_path: x}\n", ["training.pretrain_bc_heads_path"]),
        ("nn: {training: {reset_every_n_frames_generated: 64000}}\n", []),
        (
            "nn: {training: {reset_every_n_frames_generated: 64000, additional_transition_after_reset: 5}}\n",
            ["nn.training.additional_transition_after_reset"],
        ),
        (
            "training: {algorithm: dpo}\ndpo: {dpo_data_mode: both, dpo_offline_pairs_jsonl: x}\n",
            ["dpo.dpo_offline_pairs_jsonl"],
        ),
    ],
)
def test_keys_that_matter_and_are_lost_are_listed(write, text, lost):
    result = import_config(write(text))
    assert result.lost == lost
    assert result.loads


@pytest.mark.parametrize(
    ("text", "size"),
    [("{}", (256, 256)), ("{width: 60, height: 70}", (60, 70)), ("{w: 60, h: 70}", (60, 70)), ("{w: 60}", (60, 256))],
)
def test_images_have_the_size_that_the_file_says(write, text, size):
    result = import_config(write(f"nn: {{vis: {{image_size: {text}}}}}\ntraining: {{algorithm: ppo}}\n"))
    [wrapper] = yaml.safe_load(result.text)["environment"]["wrappers"]
    assert (wrapper["kind"], wrapper["width"], wrapper["height"]) == ("resize", *size)


def test_a_file_that_would_not_load_says_so(write):
    result = import_config(write("nn: {iqn: {n: 7}}\n"))
    assert not result.loads
    assert any(note.key == "to mend: iqn.num_taus" for note in result.to_mend)


def test_a_warm_start_is_not_to_be_mended_where_the_seed_system_has_none(write):
    for text in (
        "nn: {init_from_pretrained: hub}\n",  # not for iqn
        "training: {algorithm: ppo}\nnn: {init_from_pretrained: hub}\n",  # beside a fusion alone
        "training: {algorithm: ppo, pretrain_encoder_path: out}\n",
    ):
        places = [note.key for note in import_config(write(text)).to_mend]
        assert "to mend: initial_weights" not in places


# --- the finite horizon ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("{}", 7000 // 50),
        ("{temporal_mini_race_duration_ms: 2000, tm_engine_step_per_action: 4}", 2000 // 40),
        ("{temporal_mini_race_duration_ms: 2000, ms_per_tm_engine_step: 20}", 2000 // 100),
        ("{rl_action_offsets_ms: [0, 10, 20], tm_engine_step_per_action: 7}", 7000 // 30),
        ("{rl_action_offsets_ms: [0]}", 7000 // 50),
    ],
)
def test_values_look_ahead_as_far_as_there(write, text, steps):
    result = import_config(write(f"environment: {text}\n{FLOATS}{NOISY}"), environment_id="Task-v0")
    config = load_config(write(result.text, "ours.yaml"))
    assert config.iqn.fixed_horizon.steps == steps
    assert [wrapper.kind for wrapper in config.environment.wrappers] == ["clock"]
    assert config.iqn.discount == 1


@pytest.mark.parametrize(("long", "short", "duration"), [(40, 5, 7000), (3, 9, 500), (0, 0, 500), (4, 2, 100)])
def test_clock_0_is_as_likely_as_there(write, long, short, duration):
    text = f"training: {{oversample_long_term_steps: {long}, oversample_maximum_term_steps: {short}}}\n"
    result = import_config(write(f"{text}environment: {{temporal_mini_race_duration_ms: {duration}}}\n"))
    horizon = yaml.safe_load(result.text)["iqn"]["fixed_horizon"]
    steps, share = horizon["steps"], horizon["start_fraction"]
    drawn = [max(0, abs(x) - short) for x in range(short - long, steps + short)]  # every number is as likely
    assert share + (1 - share) / steps == pytest.approx(drawn.count(0) / len(drawn), abs=1e-5)


def test_policies_have_no_horizon(write):
    text = "environment: {temporal_mini_race_duration_ms: 2000}\ntraining: {algorithm: ppo}\n"
    result = import_config(write(text))
    assert "environment.temporal_mini_race_duration_ms: the horizon of iqn alone" in lines(result)
    assert [wrapper["kind"] for wrapper in yaml.safe_load(result.text)["environment"]["wrappers"]] == ["resize"]


def test_the_width_of_a_small_feed_forward_network_is_64_at_least(write):
    text = "nn: {fusion_mode: unified, encoder: {transformer: {d_model: WIDTH, ff_mult: 1, n_heads: 1}}}\n"
    for width, hidden in ((32, 64), (49, 64), (63, 64), (64, 64), (80, 80)):
        trunk = yaml.safe_load(import_config(write(text.replace("WIDTH", str(width)))).text)["nn"]["fusion"]["trunk"]
        assert int(width * trunk["feedforward_ratio"]) == hidden


# --- files of Tesserl --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", sorted(CONFIGS.rglob("*.yaml")), ids=lambda file: str(file.relative_to(CONFIGS)))
def test_a_file_of_tesserl_is_refused(file):
    with pytest.raises(
        ConfigError, match=r"yaml:\d+: [\w.]+: a key of Tesserl, which the seed system does not have; .*"
    ):
        import_config(file)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("btr: all\n", "btr"),
        ("btr: {munchausen: true}\n", "btr.munchausen"),
        ("ppo: {num_steps: 5}\n", "ppo.num_steps"),
        ("environment: {id: CartPole-v1}\n", "environment.id"),
        ("nn: {vision: {kind: cnn}}\n", "nn.vision"),
        ("training: {n_steps: 3}\nseed: 3\n", "seed"),
        ("seeds: [1, 2]\n", "seeds"),
    ],
)
def test_a_key_that_only_tesserl_has_is_refused_with_its_line(write, text, key):
    line = text.count("\n")
    with pytest.raises(ConfigError, match=rf"x\.yaml:{line}: {key}: a key of Tesserl"):
        import_config(write(text))


def test_what_a_run_of_tesserl_has_resolved_is_refused(write):
    ours = import_config(write(FLOATS + NOISY), environment_id="Task-v0").text
    with pytest.raises(ConfigError, match="a file of Tesserl needs no import: use it as it is"):
        import_config(write(ours))


def test_a_file_without_any_block_of_the_seed_system_is_refused(write):
    with pytest.raises(
        ConfigError, match=r"x\.yaml: expected a block of the seed system \(environment, .*\), got lr, a;"
    ):
        import_config(write("lr: 3\na: {b: 1}\n"))
