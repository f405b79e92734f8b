"""Why a key of the seed system has no counterpart in our schema."""

from __future__ import annotations

DISCOUNT_FIRST = "another discount of the file goes before it"
GAME = "about the game that the seed system plays; in ours the environment holds it"
NOT_READ = "the network that the file describes does not use it"
OLD_OUTPUTS = "there the value learns its own old outputs; dpo.value learns returns"
ONE_PROCESS = "about processes that run beside each other; ours collects and learns in turns"
OBSERVATIONS = "about the game's observations; write those of your task into nn.vector.normalization"
PLOTS = "about plots and tables of the seed system; ours writes metrics.csv and TensorBoard"
RESET = "nn.training.reset_every_n_frames_generated never comes"
SCHEDULE_FIRST = "its schedule goes before it"
SHAPING = "a discount of ppo; for dpo and grpo it shapes the rewards of one game"
UNUSED = "not read by the seed system either"
WARM_START = "no warm start from saved parts yet"

REASONS = {  # the longest path that leads to a key decides
    "btr": NOT_READ,
    "btr.munchausen_alpha": "btr.use_munchausen is off",
    "btr.munchausen_entropy_tau": "btr.use_munchausen is off",
    "btr.munchausen_lo": "btr.use_munchausen is off",
    "btr.noisy_sigma0": "the noise of nn.heads.noisy begins at 0.5, as in the paper",
    "dpo.dpo_beta": SCHEDULE_FIRST,
    "dpo.dpo_max_grad_norm": SCHEDULE_FIRST,
    "dpo.dpo_num_minibatches": UNUSED,
    "dpo.dpo_offline_pairs_jsonl": "its pairs are pickled; make pairs with `tesserl pairs`",
    "dpo.dpo_pair_buffer_max": "pairs are made of the trajectories of one start: pairs.source.group_size",
    "dpo.dpo_vf_coef": OLD_OUTPUTS,
    "dpo.dpo_vf_coef_schedule": OLD_OUTPUTS,
    "environment": GAME,
    "environment.temporal_mini_race_duration_ms": "in steps: iqn.fixed_horizon, with the wrapper clock",
    "exploration": "exploration is by epsilon, boltzmann or noisy alone",
    "exploration.epsilon_boltzmann_schedule": "adds noise to values in a part of the steps; see kind boltzmann",
    "exploration.multi_action_exploration": "noise explores; there is no coin to throw",
    "exploration.epsilon_schedule": "btr.use_noisy_linear switches it off in the seed system",
    "exploration.tau_epsilon_boltzmann": "a standard deviation of noise on values, not a temperature",
    "grpo.grpo_ent_coef": SCHEDULE_FIRST,
    "grpo.grpo_max_grad_norm": SCHEDULE_FIRST,
    "grpo.grpo_num_minibatches": UNUSED,
    "grpo.grpo_ref_kl_coef": SCHEDULE_FIRST,
    "grpo.grpo_ref_sync_every_updates": "grpo_ref_kl_coef is 0: there is no reference",
    "inputs": OBSERVATIONS,
    "memory.prio_beta": "memory.prio_alpha is 0: replay is uniform",
    "memory.prio_epsilon": "memory.prio_alpha is 0: replay is uniform",
    "nn": NOT_READ,
    "nn.decoder.shared_input": "heads see the features after the quantile embedding, as post_tau says",
    "nn.decoder.shared_trunk_freeze": "heads share no layers; nn.freeze [heads] freezes them",
    "nn.float_input_dim": "the size of observations comes from the environment",
    "nn.init_from_pretrained": WARM_START,
    "nn.iqn": "for the algorithm iqn only",
    "nn.training.additional_transition_after_reset": "no extra updates after a reset; see replay.ratio",
    "nn.training.clip_grad_value": "gradients are clipped by their norm only: iqn.max_grad_norm",
    "nn.training.last_layer_reset_factor": RESET,
    "nn.training.overall_reset_mul_factor": RESET,
    "nn.training.reset_every_n_frames_generated": RESET,
    "nn.training.single_reset_flag": "resets recur: iqn.reset.interval",
    "nn.vis.image_size": "the size of images comes from the environment; resize them there",
    "normalization": OBSERVATIONS,
    "performance": ONE_PROCESS,
    "performance.apply_randomcrop_augmentation": "for the algorithm iqn only",
    "performance.frames_before_save_best_runs": "checkpoint.keep_best keeps the best one",
    "performance.make_highest_prio_figures": PLOTS,
    "performance.n_pixels_to_crop_on_each_side": "performance.apply_randomcrop_augmentation is off",
    "performance.n_transitions_to_plot_in_distribution_curves": PLOTS,
    "performance.plot_race_time_left_curves": PLOTS,
    "performance.threshold_to_save_all_runs_ms": "checkpoint.keep_best keeps the best one",
    "ppo.ent_coef": SCHEDULE_FIRST,
    "ppo.gae_lambda": SCHEDULE_FIRST,
    "ppo.gamma": DISCOUNT_FIRST,
    "ppo.ppo_gamma_schedule": DISCOUNT_FIRST,
    "ppo.vf_coef": SCHEDULE_FIRST,
    "rewards": GAME,
    "training.min_horizon_to_update_priority_actions": "priorities follow every error",
    "training.nn_frozen_param_prefixes": UNUSED,
    "training.oversample_long_term_steps": "see iqn.fixed_horizon.start_fraction",
    "training.oversample_maximum_term_steps": "see iqn.fixed_horizon.start_fraction",
    "training.policy_rollout_gamma": SHAPING,
    "training.policy_rollout_gamma_schedule": SHAPING,
    "training.pretrain_actions_head_path": WARM_START,
    "training.pretrain_bc_heads_path": WARM_START,
    "training.pretrain_encoder_path": WARM_START,
    "training.pretrain_float_head_path": WARM_START,
    "training.pretrain_ppo_policy_path": WARM_START,
    "training.pretrain_ppo_policy_slice_head_to_model": WARM_START,
    "training.tensorboard_suffix_schedule": PLOTS,
}
IQN_ONLY = (
    "exploration",
    "memory",
    "nn.iqn",
    "nn.training",
    "training.batch_size",
    "training.discard_non_greedy_actions_in_nsteps",
    "training.gamma_schedule",
    "training.n_steps",
    "training.weight_decay_lr_ratio",
)
"""Keys that only iqn reads there."""

ALGORITHMS = ("dpo", "grpo", "ppo")


def reason_for(key: str, algorithm: str) -> str:
    """Why a key of the seed system is not carried over.

    Args:
        key: its dotted path.
        algorithm: what the file trains.
    """
    block = key.partition(".")[0]
    if block in ALGORITHMS and block != algorithm:
        return f"the block of {block}, while the file trains {algorithm}"
    if algorithm in ALGORITHMS:
        if key == "nn.training.use_jit":
            return f"there it compiles nothing that learns; {algorithm}.compile does"
        if any(key == place or key.startswith(f"{place}.") for place in IQN_ONLY):
            return f"read by iqn alone, while the file trains {algorithm}"
    place = key
    while place:
        if place in REASONS:
            return REASONS[place]
        place = place.rpartition(".")[0]
    return "not a key of the seed system as catalogued; it ignores such keys"
