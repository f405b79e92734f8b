"""Keys of all releases of the seed system, and the forms of their values."""

from __future__ import annotations

FLAG, WHOLE, NUMBER, TEXT = "true or false", "a whole number", "a number", "text"
KNOTS, SIZES = "a list of [step, value]", "a list of whole numbers"
ANY = "any value"
Form = str | tuple[str, ...]
"""One of the names above, or the words that are legal for a key."""

_CNN: dict[str, Form] = {
    "use_impala_cnn": FLAG,
    "impala_model_size": WHOLE,
    "use_adaptive_maxpool": FLAG,
    "adaptive_maxpool_size": WHOLE,
    "use_spectral_norm": FLAG,
}
_LAYERS: dict[str, Form] = {
    "use_hf_backbone": FLAG,
    "model_name_or_path": TEXT,
    "trust_remote_code": FLAG,
    **dict.fromkeys(("d_model", "n_layers", "n_heads", "ff_mult"), WHOLE),
    "dropout": NUMBER,
}
_TRANSFORMER: dict[str, Form] = {
    **_LAYERS,
    "hidden_dropout_prob": NUMBER,
    **dict.fromkeys(("patch_size", "post_concat_seq_len", "unified_float_tokens"), WHOLE),
    "fusion_tokens": ("summary", "patch_tokens"),
}
_STREAM: dict[str, Form] = {
    "freeze": FLAG,
    **{f"mlp.{key}": WHOLE for key in ("hidden_dim", "hidden", "n_hidden_layers", "layers")},
    **{f"{block}.{key}": form for block in ("transformer", "transformer_encoder") for key, form in _LAYERS.items()},
}
_UPDATES: dict[str, Form] = {
    **dict.fromkeys(("use_jit", "use_ddqn"), FLAG),
    **dict.fromkeys(("clip_grad_value", "clip_grad_norm", "soft_update_tau", "target_self_loss_clamp_ratio"), NUMBER),
    "number_memories_trained_on_between_target_network_updates": WHOLE,
    **dict.fromkeys(
        ("single_reset_flag", "reset_every_n_frames_generated", "additional_transition_after_reset"), WHOLE
    ),
    **dict.fromkeys(("last_layer_reset_factor", "overall_reset_mul_factor"), NUMBER),
}
_FUSION: dict[str, Form] = {
    "fusion_mode": ("none", "vision_transformer", "post_concat", "unified"),
    "init_from_pretrained": TEXT,
}


def _inside(block: str, forms: dict[str, Form]) -> dict[str, Form]:
    return {f"{block}.{key}": form for key, form in forms.items()}


_NN: dict[str, Form] = {
    **_FUSION,
    "float_input_dim": ANY,
    **dict.fromkeys(("vis.no_image", "vis.freeze", "float.freeze", "encoder.freeze", "iqn.freeze"), FLAG),
    **{f"vis.image_size.{key}": WHOLE for key in ("width", "height", "w", "h")},
    **_inside("vis.cnn", _CNN),
    **_inside("vis.transformer", _TRANSFORMER),
    "float.mlp.hidden_dim": WHOLE,
    **_inside("encoder", _FUSION),
    "encoder.mlp.hidden_dim": WHOLE,
    "encoder.fusion_encoder": ("linear", "native_transformer", "mlp", "cnn", "hf_embedding"),
    "encoder.post_concat_layout": ("fused_vector", "token_sequence"),
    "encoder.float_token_input": ("raw", "mlp_hidden"),
    "encoder.float_token_layout": ("dense", "per_feature"),
    **_inside("encoder.transformer", _TRANSFORMER),
    **_inside("encoder.fusion_mlp", {"hidden_dim": WHOLE, "n_layers": WHOLE, "dropout": NUMBER}),
    **_inside("encoder.fusion_cnn", {"hidden_channels": SIZES, "kernel_size": WHOLE, "dropout": NUMBER}),
    "encoder.hf_embedding.model_name_or_path": TEXT,
    "encoder.hf_embedding.trust_remote_code": FLAG,
    "encoder.hf_embedding.hidden_dropout_prob": NUMBER,
    **_inside("iqn", {"embedding_dimension": WHOLE, "n": WHOLE, "k": WHOLE, "kappa": NUMBER}),
    "decoder.shared_input": ("pre_tau", "post_tau"),
    "decoder.dense_hidden_dimension": WHOLE,
    "decoder.shared_trunk_freeze": FLAG,
    **_inside("decoder.advantage", _STREAM),
    **_inside("decoder.value", _STREAM),
    **_inside("training", _UPDATES),
}

_BTR: dict[str, Form] = {
    **dict.fromkeys(("use_munchausen", "use_layer_norm", "use_noisy_linear"), FLAG),
    **dict.fromkeys(("munchausen_alpha", "munchausen_entropy_tau", "munchausen_lo", "noisy_sigma0"), NUMBER),
    **_CNN,
}

WARM_STARTS = ("encoder_path", "bc_heads_path", "float_head_path", "actions_head_path")
FREEZES = {
    "pretrain_encoder_freeze": "vis.freeze",
    "pretrain_float_head_freeze": "float.freeze",
    "pretrain_iqn_fc_freeze": "iqn.freeze",
    "pretrain_actions_head_freeze": "decoder.advantage.freeze",
    "pretrain_V_head_freeze": "decoder.value.freeze",
}
"""Keys of ``training`` in older releases -> keys of ``nn`` in newer ones."""

_TRAINING: dict[str, Form] = {
    "run_name": TEXT,
    "algorithm": ("iqn", "ppo", "dpo", "grpo"),
    **{f"pretrain_{key}": TEXT for key in WARM_STARTS},
    "pretrain_ppo_policy_path": TEXT,
    "pretrain_ppo_policy_slice_head_to_model": FLAG,
    **dict.fromkeys(FREEZES, FLAG),
    "nn_frozen_param_prefixes": ANY,
    **dict.fromkeys(("batch_size", "global_schedule_speed", "n_steps"), WHOLE),
    **dict.fromkeys(("adam_epsilon", "adam_beta1", "adam_beta2", "weight_decay_lr_ratio"), NUMBER),
    **dict.fromkeys(("lr_schedule", "gamma_schedule", "policy_rollout_gamma_schedule"), KNOTS),
    "policy_rollout_gamma": NUMBER,
    "discard_non_greedy_actions_in_nsteps": FLAG,
    "tensorboard_suffix_schedule": ANY,
    **dict.fromkeys(("oversample_long_term_steps", "oversample_maximum_term_steps"), WHOLE),
    "min_horizon_to_update_priority_actions": ANY,
}

_PPO: dict[str, Form] = {
    **dict.fromkeys(
        ("gamma", "gae_lambda", "clip_coef", "clip_coef_vf", "ent_coef", "vf_coef", "max_grad_norm"), NUMBER
    ),
    **dict.fromkeys(("update_epochs", "num_minibatches", "rollout_steps_per_update"), WHOLE),
    "normalize_advantages": FLAG,
    **dict.fromkeys(("ppo_gamma_schedule", "gae_lambda_schedule", "ent_coef_schedule", "vf_coef_schedule"), KNOTS),
}
_DPO: dict[str, Form] = {
    **dict.fromkeys(("ref_sync_every_updates", "pair_buffer_max", "update_epochs", "num_minibatches"), WHOLE),
    **dict.fromkeys(("beta", "vf_coef", "max_grad_norm"), NUMBER),
    **dict.fromkeys(("beta_schedule", "vf_coef_schedule", "max_grad_norm_schedule"), KNOTS),
    "data_mode": ("online", "offline", "both"),
    "offline_pairs_jsonl": TEXT,
}
_GRPO: dict[str, Form] = {
    **dict.fromkeys(("group_size", "update_epochs", "num_minibatches", "ref_sync_every_updates"), WHOLE),
    **dict.fromkeys(("ent_coef", "max_grad_norm", "ref_kl_coef"), NUMBER),
    **dict.fromkeys(("ent_coef_schedule", "max_grad_norm_schedule", "ref_kl_coef_schedule"), KNOTS),
    "normalize_group": ("mean", "mean_std"),
}

_MEMORY: dict[str, Form] = {
    "memory_size_schedule": KNOTS,
    **dict.fromkeys(("prio_alpha", "prio_epsilon", "prio_beta", "buffer_test_ratio"), NUMBER),
    "number_times_single_memory_is_used_before_discard": WHOLE,
}
_EXPLORATION: dict[str, Form] = {
    "epsilon_schedule": KNOTS,
    "epsilon_boltzmann_schedule": KNOTS,
    "tau_epsilon_boltzmann": NUMBER,
    "multi_action_exploration": ("per_action", "per_block"),
}

_GAME: dict[str, tuple[str, ...]] = {
    "environment": (
        *(
            "n_zone_centers_in_inputs",
            "one_every_n_zone_centers_in_inputs",
            "distance_between_checkpoints",
            "road_width",
        ),
        *("n_zone_centers_extrapolate_after_end_of_map", "n_zone_centers_extrapolate_before_start_of_map"),
        *("margin_to_announce_finish_meters", "n_contact_material_physics_behavior_types", "n_prev_actions_in_inputs"),
        "cutoff_rollout_if_race_not_finished_within_duration_ms",
        *("cutoff_rollout_if_no_vcp_passed_within_duration_ms", "timeout_during_run_ms", "timeout_between_runs_ms"),
        *("tmi_protection_timeout_s", "game_reboot_interval", "deck_height", "game_camera_number"),
        *("sync_virtual_and_real_checkpoints", "ms_per_action", "ms_per_block", "n_actions_per_block"),
        *("max_allowable_distance_to_virtual_checkpoint", "temporal_mini_race_duration_actions"),
    ),
    "rewards": (
        *("constant_reward_per_ms", "reward_per_m_advanced_along_centerline", "shaped_reward_dist_to_cur_vcp"),
        *("shaped_reward_min_dist_to_cur_vcp", "shaped_reward_max_dist_to_cur_vcp", "shaped_reward_point_to_vcp_ahead"),
        *("engineered_reward_min_dist_to_cur_vcp", "engineered_reward_max_dist_to_cur_vcp"),
        *("engineered_speedslide_reward_schedule", "engineered_neoslide_reward_schedule"),
        *("engineered_kamikaze_reward_schedule", "engineered_close_to_vcp_reward_schedule"),
        *("final_speed_reward_as_if_duration_s", "final_speed_reward_per_m_per_s"),
    ),
    "map_cycle": ("entries", "map_cycle"),
    "inputs": ("actions", "action_forward_idx", "action_backward_idx"),
    "state_normalization": ("waypoint_mean_40cp", "waypoint_std_40cp", "float_inputs_mean", "float_inputs_std"),
    "performance": (
        *("max_rollout_queue_size", "send_shared_network_every_n_batches", "update_inference_network_every_n_actions"),
        *("warn_learner_wait_s", "warn_learner_wait_rate_limit_s", "plot_race_time_left_curves"),
        *("n_transitions_to_plot_in_distribution_curves", "make_highest_prio_figures", "frames_before_save_best_runs"),
        *("threshold_to_save_all_runs_ms", "running_speed", "force_window_focus_on_input", "use_gymnasium_env"),
        *("pin_tm_forever_cpu_affinity", "tm_forever_cpu_affinity_offset", "tm_forever_cpu_affinity_cpus"),
    ),
    "user": (
        *("username", "trackmania_base_path", "target_python_link_path", "base_tmi_port", "linux_launch_game_path"),
        *("windows_TMLoader_path", "windows_TMLoader_profile_name"),
    ),
}
"""Keys whose values the importer does not read."""

_ENVIRONMENT: dict[str, Form] = {
    **dict.fromkeys(("tm_engine_step_per_action", "ms_per_tm_engine_step", "temporal_mini_race_duration_ms"), WHOLE),
    "rl_action_offsets_ms": SIZES,
}
_PERFORMANCE: dict[str, Form] = {
    **dict.fromkeys(("gpu_collectors_count", "n_pixels_to_crop_on_each_side"), WHOLE),
    "apply_randomcrop_augmentation": FLAG,
}

OLDER = "neural_network"
"""Block of the network in older releases."""

RENAMED: dict[str, str] = {
    "w_downsized": "nn.vis.image_size.width",
    "h_downsized": "nn.vis.image_size.height",
    "float_hidden_dim": "nn.float.mlp.hidden_dim",
    "dense_hidden_dimension": "nn.decoder.dense_hidden_dimension",
    "iqn_embedding_dimension": "nn.iqn.embedding_dimension",
    **{f"iqn_{key}": f"nn.iqn.{key}" for key in ("n", "k", "kappa")},
    **{key: f"nn.training.{key}" for key in _UPDATES},
    "float_input_dim": "nn.float_input_dim",
    "use_iqn_image_head": "nn.vis.no_image",  # its opposite
}
"""Keys of `OLDER` -> dotted paths of newer releases."""

KEYS: dict[str, Form] = {
    **{f"{block}.{key}": ANY for block, keys in _GAME.items() for key in keys},
    **_inside("environment", _ENVIRONMENT),
    **_inside("nn", _NN),
    **_inside("training", _TRAINING),
    **_inside("memory", _MEMORY),
    **_inside("exploration", _EXPLORATION),
    **_inside("performance", _PERFORMANCE),
    **_inside("btr", _BTR),
    **_inside("ppo", _PPO),
    **{f"dpo.dpo_{key}": form for key, form in _DPO.items()},
    **{f"grpo.grpo_{key}": form for key, form in _GRPO.items()},
}
"""Dotted path of each key, of releases with ``nn`` and of older ones -> the form of its value."""
KEYS |= {f"{OLDER}.{key}": KEYS[path] for key, path in RENAMED.items()}

BLOCKS = tuple(dict.fromkeys(key.partition(".")[0] for key in KEYS))
"""Top-level blocks."""
