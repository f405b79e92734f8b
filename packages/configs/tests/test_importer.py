"""The seed system's configurations; expected numbers follow from its documented semantics."""

import pytest

from tesserl_configs import ConfigError, load_config
from tesserl_configs.importer import import_config
from tesserl_configs.importer.reasons import REASONS

SEED = """\
environment: {temporal_mini_race_duration_ms: 7000}
nn:
  fusion_mode: none
  vis: {image_size: {width: 64}, freeze: true, cnn: {use_impala_cnn: false, impala_model_size: 2}}
  float: {mlp: {hidden_dim: 200}}
  iqn: {embedding_dimension: 64, n: 6, k: 30, kappa: 0.01}
  decoder: {dense_hidden_dimension: 512, advantage: {mlp: {hidden: 300, layers: 2}}, value: {mlp: {}}}
  training: {use_jit: false, use_ddqn: false, clip_grad_norm: 8, clip_grad_value: 9, soft_update_tau: 0.05,
             number_memories_trained_on_between_target_network_updates: 128}
btr: {use_munchausen: true, munchausen_lo: -2.0, munchausen_entropy_tau: 0.1, use_layer_norm: true}
training: {run_name: run_a, algorithm: iqn, batch_size: 64, global_schedule_speed: 2, n_steps: 2, adam_epsilon: 1e-4,
           lr_schedule: [[0, 1e-3], [1_000_000, 5e-5]], gamma_schedule: [[0, 0.9], [9, 0.997]], misspelt: 1}
memory: {memory_size_schedule: [[0, [65_000, 20_000]], [5_000_000, [900_000, 100_000]]], prio_alpha: 0.2,
         number_times_single_memory_is_used_before_discard: 16}
exploration: {epsilon_schedule: [[0, 1], [50_000, 0]], tau_epsilon_boltzmann: 0.01}
performance: {gpu_collectors_count: 3, max_rollout_queue_size: 1}
ppo: {gamma: 0.9}
"""


@pytest.fixture
def imported(write):
    def read(text: str = SEED, **options):
        result = import_config(write(text, "seed.yaml"), **options)
        return result, load_config(write(result.text, "ours.yaml"))

    return read


def test_what_is_written_is_a_valid_configuration_with_the_same_meaning(imported):
    _, config = imported(environment_id="CarRacing-v3")
    assert (config.name, config.environment.id, config.environment.num_envs) == ("run_a", "CarRacing-v3", 3)
    assert config.nn.vision.channels == (16, 32, 64, 32)
    assert (config.nn.vector.hidden_sizes, config.nn.vector.layer_norm) == ((200, 200), True)
    assert (config.nn.vector.activation, config.nn.vision.pixel_range) == ("leaky_relu", "centered")
    heads = config.nn.heads
    assert (heads.advantage.hidden_sizes, heads.value.hidden_sizes) == ((300, 300), (512 // 2,))
    assert (heads.dueling, heads.layer_norm, heads.activation) == (True, True, "leaky_relu")
    assert config.nn.freeze == ("vision",)
    iqn = config.iqn
    assert (iqn.num_taus, iqn.num_target_taus, iqn.num_policy_taus, iqn.num_cosines) == (6, 6, 30, 64)
    assert (iqn.cosine_start, iqn.cosine_activation) == (1, "leaky_relu")
    assert (iqn.tau_sampling, iqn.kappa) == ("antithetic", 0.01)
    assert [wrapper.kind for wrapper in config.environment.wrappers] == ["resize", "clock"]
    assert iqn.fixed_horizon.steps == 7000 // 50
    assert (iqn.discount, iqn.num_steps, iqn.double, iqn.compile) == (0.997, 2, False, False)
    assert (iqn.update_interval, config.replay.ratio) == (None, 16)
    assert (iqn.target_update.rate, iqn.target_update.interval) == (0.05, 128 // 64)


def test_a_sum_over_the_batch_becomes_a_mean(imported):
    _, config = imported()
    assert config.iqn.max_grad_norm == pytest.approx(8 / 64)
    assert config.optimizer.eps == pytest.approx(1e-4 / 64)


def test_the_bound_of_the_log_policy_is_scaled_by_the_temperature(imported):
    munchausen = imported()[1].iqn.munchausen
    assert (munchausen.temperature, munchausen.clip, munchausen.log_policy) == (0.1, pytest.approx(-0.2), "target")


def test_written_schedules_are_stretched_and_a_knot_of_zero_makes_them_linear(imported):
    _, config = imported()
    assert config.optimizer.learning_rate.kind == "exponential"
    assert config.optimizer.learning_rate.knots == ((0, 1e-3), (2_000_000, 5e-5))
    assert config.iqn.exploration.epsilon.kind == "linear"
    assert config.total_steps == 2_000_000


def test_replay_takes_the_last_capacity_and_the_first_learning_start(imported):
    replay = imported()[1].replay
    assert (replay.kind, replay.capacity, replay.warmup_steps, replay.alpha) == ("prioritized", 900_000, 20_000, 0.2)
    assert (replay.beta, replay.eps) == (1, 2e-3)


def test_the_defaults_of_the_seed_system_are_written_out(imported):
    _, config = imported("training: {algorithm: iqn}\n")
    assert (config.iqn.kappa, config.iqn.num_cosines, config.iqn.num_steps, config.iqn.discount) == (0.005, 128, 3, 1.0)
    assert (config.optimizer.kind, config.optimizer.weight_decay) == ("radam", 0.1)
    assert config.iqn.batch_size == 512
    assert (config.iqn.update_interval, config.replay.ratio) == (None, 32)
    assert (config.replay.test_fraction, config.replay.cut_at_exploration) == (0.05, True)
    assert config.nn.heads.hidden_sizes == (512,)
    assert config.replay.kind == "uniform"


def test_noisy_layers_replace_epsilon(imported):
    result, config = imported("btr: {use_noisy_linear: true}\nexploration: {epsilon_schedule: [[0, 1]]}\n")
    assert (config.iqn.exploration.kind, config.nn.heads.noisy) == ("noisy", True)
    assert "exploration.epsilon_schedule: btr.use_noisy_linear switches it off in the seed system" in lines(result)


def test_no_image_means_no_vision_and_nothing_to_freeze_there(imported):
    _, config = imported("nn: {vis: {no_image: true, freeze: true}}\n")
    assert (config.nn.vision.kind, config.nn.freeze) == ("none", ())


def test_every_key_of_the_file_is_named_once_or_more(imported):
    result, _ = imported()
    keys = {note.key for note in result.notes}
    assert {
        "nn.iqn.n",
        "nn.decoder.advantage.mlp.layers",
        "training.batch_size",
        "memory.prio_alpha",
        "ppo.gamma",
        "training.misspelt",
    } <= keys
    assert lines(result)[:2] == [
        "environment.temporal_mini_race_duration_ms -> iqn.fixed_horizon.steps (/ 50 ms for each action; {kind: clock} "
        "in environment.wrappers counts them)",
        "nn.fusion_mode -> nn.fusion.kind",
    ]
    assert "nn.iqn.n -> iqn.num_taus (and iqn.num_target_taus)" in lines(result)


@pytest.mark.parametrize(
    "line",
    [
        "nn.vis.cnn.impala_model_size: use_impala_cnn is off",
        "nn.vis.image_size.width -> environment.wrappers, width of resize",
        "nn.training.clip_grad_value: 9 behind a norm of 8 changes nothing",
        "nn.training.clip_grad_norm -> iqn.max_grad_norm (8 / 64: its loss is a sum over the batch)",
        "nn.decoder.dense_hidden_dimension -> nn.heads.hidden_sizes (512 / 2, in each stream without a width of its "
        "own)",
        "training.misspelt: not a key of the seed system, which ignores such keys",
        "ppo.gamma: the block of ppo, while the file trains iqn",
        "exploration.tau_epsilon_boltzmann: see `to mend: iqn.exploration`",
        "performance.max_rollout_queue_size: about processes that run beside each other; "
        "ours collects and learns in turns",
        "to mend: environment.id: write the Gymnasium id of your task there",
        "training.lr_schedule -> total_steps (where its schedule ends; the seed system runs until it is stopped)",
        "training.gamma_schedule -> iqn.discount (its last value, 0.997; a number here)",
    ],
)
def test_a_key_without_a_counterpart_is_named_with_the_reason(imported, line):
    assert line in lines(imported()[0])


def test_rarer_options_of_iqn_are_carried_over(imported):
    text = """\
nn:
  vis: {cnn: {use_adaptive_maxpool: true, adaptive_maxpool_size: 4, use_spectral_norm: true}}
  training: {target_self_loss_clamp_ratio: 3, reset_every_n_frames_generated: 64_000, last_layer_reset_factor: 0.7,
             overall_reset_mul_factor: 0.02, additional_transition_after_reset: 5}
training: {algorithm: iqn, batch_size: 128}
memory: {number_times_single_memory_is_used_before_discard: 16}
exploration: {multi_action_exploration: per_block}
performance: {apply_randomcrop_augmentation: true, n_pixels_to_crop_on_each_side: 3}
"""
    result, config = imported(text, environment_id="CarRacing-v3")
    iqn, vision = config.iqn, config.nn.vision
    assert (vision.kind, vision.pool_size, vision.spectral_norm) == ("cnn", 4, "all")
    assert (iqn.self_loss_clamp_ratio, iqn.random_crop, iqn.exploration.per_block) == (3, 3, False)
    reset = iqn.reset  # 64,000 frames, each used 16 times, in batches of 128
    assert (reset.interval, reset.factor, reset.last_layer_factor) == (8_000, 0.02, 0.7)
    assert not [note for note in result.notes if "not a key of the seed system" in note.text]
    assert [str(note) for note in result.to_mend if "iqn.reset" in note.key] == [
        "to mend: iqn.reset: there 5 transitions more are learned from after each reset; no extra updates here: raise "
        "replay.ratio, or accept it"
    ]
    _, plain = imported("training: {algorithm: iqn}\nnn: {vis: {cnn: {}}}\n", environment_id="CarRacing-v3")
    assert (plain.iqn.self_loss_clamp_ratio, plain.iqn.random_crop, plain.iqn.reset) == (4, None, None)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("training: {batch_size: many}\n", "training.batch_size"),
        ("memory: {memory_size_schedule: 5}\n", "memory.memory_size_schedule"),
        ("training: {lr_schedule: 5}\n", "training.lr_schedule"),
        ("training: {algorithm: sac}\n", "training.algorithm"),
        ("training: {run_name: [a]}\n", "training.run_name"),
        ("training: {n_steps: 2.5}\n", "training.n_steps"),
        ("training: {n_steps: {a: 2}}\n", "training.n_steps.a"),
        ("training: {adam_epsilon: [1]}\n", "training.adam_epsilon"),
        ("btr: {use_munchausen: maybe}\n", "btr.use_munchausen"),
        ("btr: {use_munchausen: 2}\n", "btr.use_munchausen"),
        ("nn: {vis: 5}\n", "nn.vis"),
        ("nn: {fusion_mode: late}\n", "nn.fusion_mode"),
        ("nn: {encoder: {fusion_cnn: {hidden_channels: 5}}}\n", "nn.encoder.fusion_cnn.hidden_channels"),
        ("grpo: {grpo_normalize_group: std}\n", "grpo.grpo_normalize_group"),
        ("environment: {rl_action_offsets_ms: ten}\n", "environment.rl_action_offsets_ms"),
        ("neural_network: {iqn_n: eight}\n", "neural_network.iqn_n"),
    ],
)
def test_a_value_of_another_form_is_an_error_that_names_the_key(write, text, key):
    with pytest.raises(
        ConfigError, match=rf"x\.yaml:1: {key}: not a value as the seed system has it there \("
    ) as caught:
        import_config(write(text))
    assert "expected " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("training: {batch_size: 0}\n", "training.batch_size"),
        ("training: {lr_schedule: []}\n", "training.lr_schedule"),
        ("environment: {ms_per_tm_engine_step: 0}\n", "environment.temporal_mini_race_duration_ms"),
        ("environment: {temporal_mini_race_duration_ms: 49}\n", "environment.temporal_mini_race_duration_ms"),
    ],
)
def test_a_value_that_cannot_be_converted_is_an_error_that_names_the_key(write, text, key):
    with pytest.raises(ConfigError, match=rf"x\.yaml: {key}: not a value as the seed system has it there"):
        import_config(write(text))


def test_a_key_that_stands_twice_is_an_error(write):
    with pytest.raises(ConfigError, match=r"x\.yaml:2: btr: the key is repeated, first in line 1; remove one"):
        import_config(write("btr: {}\nbtr: {}\n"))


def test_reasons_are_sentences_about_keys_that_are_not_carried_over(imported):
    carried = {note.key for note in imported()[0].notes if note.target}
    assert not {key for key in REASONS if key in carried} - {"btr.munchausen_lo", "btr.munchausen_entropy_tau",
        "exploration.epsilon_schedule", "memory.prio_beta", "environment.temporal_mini_race_duration_ms"}  # fmt: skip


def lines(result) -> list[str]:
    return [str(note) for note in result.notes]
