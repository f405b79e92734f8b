"""Reasons why keys of the seed system have no counterpart in our schema."""

from __future__ import annotations

from collections.abc import Callable

from tesserl_configs.importer.catalogue import FREEZES, KEYS, OLDER, RENAMED, WARM_STARTS
from tesserl_configs.importer.iqn import resets
from tesserl_configs.importer.reading import suggestion
from tesserl_configs.importer.source import Source

ACTIONS = "the actions of the game; the action space of your task takes their place"
CLIENT = "about the client of the game that the seed system plays"
COMPUTED = "the seed system computes it when it loads a file; a value in the file has no effect"
DISCOUNT_FIRST = "another discount of the file takes precedence"
EMPTY = "empty, so nothing is loaded before training"
GAME = "about the game that the seed system plays; here the environment holds it"
MAPS = "the maps that the game plays in turn; here the environment chooses what is played"
NOT_READ = "the network that the file describes does not use it"
NULL = "null: the seed system's default, as if the key were not there"
OLD_OUTPUTS = "there the value learns its own old outputs; dpo.value learns returns"
ONE_PROCESS = "about processes that run beside each other; ours collects and learns in turns"
OTHER_RELEASES = "read by older releases alone, those with neural_network; newer ones ignore it"
PLOTS = "about plots and tables of the seed system; ours writes metrics.csv and TensorBoard"
SCHEDULE_FIRST = "its schedule takes precedence"
SHAPING = "a discount of ppo; for dpo and grpo it shapes the rewards of one game"
STATISTICS = "statistics of the game's observations; see `to mend: nn.vector.normalization`"
UNUSED = "not read by the seed system either"
USER = "the seed system reads it from its .env file, not from here"

REASONS: dict[str, str] = {  # the longest path that contains a key wins
    "btr": NOT_READ,
    "btr.munchausen_alpha": "btr.use_munchausen is off",
    "btr.munchausen_entropy_tau": "btr.use_munchausen is off",
    "btr.munchausen_lo": "btr.use_munchausen is off",
    "dpo.dpo_beta": SCHEDULE_FIRST,
    "dpo.dpo_max_grad_norm": SCHEDULE_FIRST,
    "dpo.dpo_num_minibatches": UNUSED,
    "dpo.dpo_offline_pairs_jsonl": "its pairs are pickled; make pairs with `tesserl pairs`",
    "dpo.dpo_pair_buffer_max": "pairs are made of the trajectories of one start: pairs.source.group_size",
    "dpo.dpo_vf_coef": OLD_OUTPUTS,
    "dpo.dpo_vf_coef_schedule": OLD_OUTPUTS,
    "environment": GAME,
    "environment.max_allowable_distance_to_virtual_checkpoint": COMPUTED,
    "environment.ms_per_action": COMPUTED,
    "environment.ms_per_block": COMPUTED,
    "environment.n_actions_per_block": COMPUTED,
    "environment.rl_action_offsets_ms": "action blocks come from the task: a MultiDiscrete space with equal entries",
    "environment.temporal_mini_race_duration_actions": COMPUTED,
    "environment.temporal_mini_race_duration_ms": "the horizon of iqn alone",
    "exploration.epsilon_schedule": "btr.use_noisy_linear switches it off in the seed system",
    "exploration.epsilon_boltzmann_schedule": "btr.use_noisy_linear switches it off in the seed system",
    "exploration.multi_action_exploration": "btr.use_noisy_linear explores by noise; there is no coin to throw",
    "exploration.tau_epsilon_boltzmann": "btr.use_noisy_linear switches it off in the seed system",
    "grpo.grpo_ent_coef": SCHEDULE_FIRST,
    "grpo.grpo_max_grad_norm": SCHEDULE_FIRST,
    "grpo.grpo_num_minibatches": UNUSED,
    "grpo.grpo_ref_kl_coef": SCHEDULE_FIRST,
    "grpo.grpo_ref_sync_every_updates": "grpo_ref_kl_coef is 0: there is no reference",
    "inputs": GAME,
    "inputs.actions": ACTIONS,
    "map_cycle": MAPS,
    "map_cycle.map_cycle": COMPUTED,
    "memory.prio_beta": "memory.prio_alpha is 0: replay is uniform",
    "memory.prio_epsilon": "memory.prio_alpha is 0: replay is uniform",
    "nn": NOT_READ,
    "nn.decoder.shared_trunk_freeze": "iqn has no such layers, and the seed system ignores it there",
    "nn.decoder.value.freeze": "grpo trains no value",
    "nn.encoder.fusion_mode": "nn.fusion_mode says it already",
    "nn.float_input_dim": COMPUTED,
    "nn.training.single_reset_flag": "compared with itself, as the file is read once: it never resets anything",
    "performance": ONE_PROCESS,
    "performance.apply_randomcrop_augmentation": "read by iqn alone",
    "performance.force_window_focus_on_input": CLIENT,
    "performance.frames_before_save_best_runs": "checkpoint.keep_best keeps the best one",
    "performance.make_highest_prio_figures": PLOTS,
    "performance.n_pixels_to_crop_on_each_side": "performance.apply_randomcrop_augmentation is off",
    "performance.n_transitions_to_plot_in_distribution_curves": PLOTS,
    "performance.pin_tm_forever_cpu_affinity": CLIENT,
    "performance.plot_race_time_left_curves": PLOTS,
    "performance.running_speed": CLIENT,
    "performance.threshold_to_save_all_runs_ms": "checkpoint.keep_best keeps the best one",
    "performance.tm_forever_cpu_affinity_cpus": CLIENT,
    "performance.tm_forever_cpu_affinity_offset": CLIENT,
    "performance.use_gymnasium_env": CLIENT,
    "ppo.ent_coef": SCHEDULE_FIRST,
    "ppo.gae_lambda": SCHEDULE_FIRST,
    "ppo.gamma": DISCOUNT_FIRST,
    "ppo.ppo_gamma_schedule": DISCOUNT_FIRST,
    "ppo.vf_coef": SCHEDULE_FIRST,
    "rewards": GAME,
    "rewards.final_speed_reward_per_m_per_s": COMPUTED,
    "state_normalization": STATISTICS,
    "state_normalization.float_inputs_mean": COMPUTED,
    "state_normalization.float_inputs_std": COMPUTED,
    "training.min_horizon_to_update_priority_actions": COMPUTED,
    "training.nn_frozen_param_prefixes": "no longer read by the seed system",
    "training.policy_rollout_gamma": "a discount of ppo, dpo and grpo",
    "training.policy_rollout_gamma_schedule": "a discount of ppo, dpo and grpo",
    "training.tensorboard_suffix_schedule": PLOTS,
    "user": USER,
    **{f"training.{key}": OTHER_RELEASES for key in FREEZES},
}
IQN_ONLY = (
    "btr.munchausen_alpha",
    "btr.munchausen_entropy_tau",
    "btr.munchausen_lo",
    "btr.noisy_sigma0",
    "btr.use_layer_norm",
    "btr.use_munchausen",
    "btr.use_noisy_linear",
    "exploration",
    "memory",
    "nn.decoder.advantage.mlp",
    "nn.decoder.advantage.transformer",
    "nn.decoder.advantage.transformer_encoder",
    "nn.decoder.shared_input",
    "nn.decoder.value.mlp",
    "nn.decoder.value.transformer",
    "nn.decoder.value.transformer_encoder",
    "nn.iqn",
    "nn.training",
    "training.batch_size",
    "training.discard_non_greedy_actions_in_nsteps",
    "training.gamma_schedule",
    "training.n_steps",
    "training.oversample_long_term_steps",
    "training.oversample_maximum_term_steps",
    "training.weight_decay_lr_ratio",
    *(f"training.pretrain_{key}" for key in WARM_STARTS),
)
"""Keys that only iqn reads in the seed system."""

ALGORITHMS = ("dpo", "grpo", "ppo")


def reason_for(source: Source, key: str) -> str:
    """Return the reason why a key, by its path in releases with ``nn``, is not converted."""
    if key not in KEYS:
        return f"not a key of the seed system, which ignores such keys{suggestion(source.name(key))}"
    if source.leaves[key] is None:
        return NULL
    block, algorithm = key.partition(".")[0], source.algorithm
    if block in ALGORITHMS and block != algorithm:
        return f"the block of {block}, while the file trains {algorithm}"
    if algorithm in ALGORITHMS:
        if key == "nn.training.use_jit":
            return f"there it compiles nothing that learns; {algorithm}.compile does"
        if any(key == place or key.startswith(f"{place}.") for place in IQN_ONLY):
            return f"read by iqn alone, while the file trains {algorithm}"
        if key.startswith("training.policy_rollout_gamma"):
            return DISCOUNT_FIRST if algorithm == "ppo" else SHAPING
    special = SPECIAL.get(key)
    text = special(source, key) if special else ""
    place = key
    while not text:
        text, place = REASONS.get(place, ""), place.rpartition(".")[0]
    return _as_written(source, text)


def _as_written(source: Source, text: str) -> str:
    """Return a reason with the names of the keys in the release of the file."""
    if source.is_older:
        for key, path in RENAMED.items():
            text = text.replace(path, f"{OLDER}.{key}")
    return text


def _of_a_convolution(source: Source, key: str) -> str:
    """Return why an option of the convolutions has no effect."""
    option = key.rpartition(".")[2]
    if source.value("nn.vis.no_image", False):
        return "there is no image"
    if source.has("nn.vis.transformer"):
        return "the encoder of images is a transformer"
    if key.startswith("btr."):
        if not (source.is_older or source.has("nn.vis.cnn")):
            return "read only beside nn.vis.cnn, be it empty, which the file does not have"
        if source.value(f"nn.vis.cnn.{option}") is not None:
            return f"nn.vis.cnn.{option} takes precedence"
    switch = {"impala_model_size": "use_impala_cnn", "adaptive_maxpool_size": "use_adaptive_maxpool"}.get(option)
    return f"{switch} is off" if switch else NOT_READ


def _of_an_image(source: Source, key: str) -> str:
    if source.value("nn.vis.no_image", False):
        return "there is no image"
    letter = key.rpartition(".")[2][0]
    return f"nn.vis.image_size.{letter} takes precedence"


def _of_a_warm_start(source: Source, key: str) -> str:
    """Return why no weights are loaded, or a reference to the note about them."""
    if not source.leaves[key]:
        return EMPTY
    if source.algorithm == "iqn":
        return "read for policies alone, while the file trains iqn"
    if key.endswith("init_from_pretrained") and source.value("nn.fusion_mode", "none") == "none":
        return "read beside a fusion alone"
    return "see `to mend: initial_weights`"


def _of_parts(source: Source, key: str) -> str:
    return "see `to mend: initial_weights`" if source.leaves[key] else EMPTY


def _of_a_slice(source: Source, _: str) -> str:
    if not source.value("training.pretrain_ppo_policy_path") or source.algorithm == "iqn":
        return "nothing is loaded that could be cut"
    return "a network that is loaded must have the same shapes: initial_weights"


def _of_a_reset(source: Source, _: str) -> str:
    if resets(source):
        return "see `to mend: iqn.reset`"
    return "nn.training.reset_every_n_frames_generated never comes"


def _of_the_clip(source: Source, key: str) -> str:
    limit, norm = source.leaves[key], source.value("nn.training.clip_grad_norm", 30)
    if limit < norm:
        return "see `to mend: iqn.max_grad_norm`"
    return f"{limit:g} behind a norm of {norm:g} changes nothing"


def _of_the_noise(source: Source, key: str) -> str:
    if not source.value("btr.use_noisy_linear", False):
        return "btr.use_noisy_linear is off"
    return "0.5, where noise begins here" if source.leaves[key] == 0.5 else "see `to mend: nn.heads.noisy`"


def _of_exploration(source: Source, _: str) -> str:
    return "" if source.value("btr.use_noisy_linear", False) else "see `to mend: iqn.exploration`"


def _of_the_input(source: Source, key: str) -> str:
    if source.leaves[key] == "pre_tau":
        return "changes nothing there: heads see the features after the quantile embedding, here too"
    return "heads see the features after the quantile embedding here too"


SPECIAL: dict[str, Callable[[Source, str], str]] = {
    **{
        f"{block}.{key}": _of_a_convolution
        for block in ("nn.vis.cnn", "btr")
        for key in ("use_impala_cnn", "impala_model_size", "use_adaptive_maxpool", "adaptive_maxpool_size")
    },
    "nn.vis.cnn.use_spectral_norm": _of_a_convolution,
    "btr.use_spectral_norm": _of_a_convolution,
    **{f"nn.vis.image_size.{key}": _of_an_image for key in ("width", "height", "w", "h")},
    "nn.init_from_pretrained": _of_a_warm_start,
    "nn.encoder.init_from_pretrained": _of_a_warm_start,
    "training.pretrain_ppo_policy_path": _of_a_warm_start,
    "training.pretrain_ppo_policy_slice_head_to_model": _of_a_slice,
    **{f"training.pretrain_{key}": _of_parts for key in WARM_STARTS},
    **{
        f"nn.training.{key}": _of_a_reset
        for key in ("reset_every_n_frames_generated", "last_layer_reset_factor", "overall_reset_mul_factor")
    },
    "nn.training.additional_transition_after_reset": _of_a_reset,
    "nn.training.clip_grad_value": _of_the_clip,
    "btr.noisy_sigma0": _of_the_noise,
    "exploration.epsilon_boltzmann_schedule": _of_exploration,
    "exploration.tau_epsilon_boltzmann": _of_exploration,
    "nn.decoder.shared_input": _of_the_input,
}
"""Keys whose reason depends on the rest of the file -> function that returns it; empty takes that of `REASONS`."""
