"""Names that SB3 (Stable-Baselines3), CleanRL and TRL have for our keys, for messages about unknown keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class ForeignName(NamedTuple):
    """A name of another library."""

    libraries: str
    keys: tuple[str, ...]
    """Dotted paths of the equivalent keys, one for each algorithm that has one."""
    remark: str
    """Difference in the value; empty if there is none."""

    def sentence(self, name: str, keys: Iterable[str]) -> str:
        """Return a sentence about the keys that are equivalent to a name."""
        return f"{name} of {self.libraries} is {' or '.join(keys)} here{self.remark and f': {self.remark}'}"


_ROWS = (  # libraries, names, keys, how the value differs
    ("SB3 and CleanRL", "gamma", "iqn.discount ppo.discount grpo.discount", ""),
    ("SB3, CleanRL and TRL", "lr learning_rate", "optimizer.learning_rate", ""),
    ("CleanRL", "anneal_lr", "optimizer.learning_rate", "a schedule {kind: linear, knots: [[0, 2.5e-4], [STEPS, 0]]}"),
    ("TRL", "lr_scheduler_type", "optimizer.learning_rate", "a schedule"),
    ("TRL", "adam_epsilon", "optimizer.eps", ""),
    ("SB3 and TRL", "total_timesteps max_steps", "total_steps", ""),
    ("CleanRL and TRL", "exp_name run_name", "name", ""),
    ("SB3 and CleanRL", "env env_id", "environment.id", ""),
    ("SB3", "n_envs", "environment.num_envs", ""),
    ("SB3", "env_kwargs", "environment.kwargs", ""),
    ("SB3", "policy_kwargs", "nn", ""),
    ("SB3", "net_arch", "nn.vector.hidden_sizes", "the hidden layers of the heads are nn.heads.hidden_sizes"),
    ("SB3", "activation_fn", "nn.vector.activation", ""),
    ("SB3", "clip_range", "ppo.clip_epsilon grpo.loss.clip_epsilon", ""),
    ("CleanRL", "clip_coef", "ppo.clip_epsilon grpo.loss.clip_epsilon", ""),
    ("SB3", "clip_range_vf", "ppo.value_clip", ""),
    ("CleanRL", "clip_vloss", "ppo.value_clip", "a distance, such as 0.2, or null"),
    ("SB3", "n_steps", "ppo.num_steps iqn.num_steps", ""),
    ("SB3", "n_epochs", "ppo.num_epochs grpo.num_epochs", ""),
    ("CleanRL", "update_epochs", "ppo.num_epochs grpo.num_epochs", ""),
    ("SB3", "batch_size", "ppo.num_minibatches grpo.num_minibatches", "the number of parts"),
    ("CleanRL", "minibatch_size", "ppo.num_minibatches grpo.num_minibatches", "the number of parts"),
    ("SB3 and CleanRL", "ent_coef", "ppo.entropy_coef grpo.entropy_coef dpo.entropy_coef cpl.entropy_coef", ""),
    ("SB3 and CleanRL", "vf_coef", "ppo.value_coef dpo.value.coef cpl.value.coef", ""),
    ("CleanRL", "norm_adv", "ppo.normalize_advantage", ""),
    ("SB3 and CleanRL", "buffer_size", "replay.capacity", ""),
    ("SB3 and CleanRL", "learning_starts", "replay.warmup_steps", ""),
    ("SB3", "train_freq", "iqn.update_interval", ""),
    ("CleanRL", "train_frequency", "iqn.update_interval", ""),
    ("SB3", "gradient_steps", "iqn.update_interval", "environment steps of all environments for each update"),
    ("SB3 and CleanRL", "tau", "iqn.target_update.rate", ""),
    ("SB3", "target_update_interval", "iqn.target_update.interval", "in gradient updates"),
    ("CleanRL", "target_network_frequency", "iqn.target_update.interval", "in gradient updates"),
    ("SB3", "exploration_initial_eps exploration_final_eps", "iqn.exploration.epsilon", "a schedule"),
    ("CleanRL", "start_e end_e", "iqn.exploration.epsilon", "a schedule"),
    ("SB3", "n_quantiles", "iqn.num_fixed_quantiles", ""),
    ("TRL", "num_generations", "grpo.group_size", ""),
    ("TRL", "max_completion_length", "grpo.max_length", ""),
    ("TRL", "num_iterations", "grpo.num_epochs", ""),
    ("TRL", "epsilon", "grpo.loss.clip_epsilon", ""),
    ("TRL", "epsilon_high", "grpo.loss.clip_epsilon_high", ""),
    ("TRL", "beta", "grpo.kl.coef", ""),
    ("TRL", "scale_rewards", "grpo.advantages.scale", ""),
    ("TRL", "importance_sampling_level", "grpo.loss.importance_level", ""),
    ("TRL", "loss_type", "dpo.loss.kind grpo.reduction", ""),
    ("TRL", "rpo_alpha", "dpo.nll_coef", ""),
    ("TRL", "simpo_gamma", "dpo.loss.gamma", ""),
    ("TRL", "discopop_tau", "dpo.loss.tau", ""),
    ("TRL", "f_divergence_type", "dpo.loss.f_divergence.kind", ""),
    ("TRL", "f_alpha_divergence_coef", "dpo.loss.f_divergence.alpha", ""),
    ("TRL", "reference_free", "dpo.reference", "{kind: none}"),
    ("TRL", "sync_ref_model", "dpo.reference.kind grpo.kl.reference.kind", "sync or moving_average"),
    ("TRL", "ref_model_sync_steps", "dpo.reference.interval grpo.kl.reference.interval", ""),
    ("TRL", "ref_model_mixup_alpha", "dpo.reference.rate grpo.kl.reference.rate", ""),
    ("TRL", "per_device_train_batch_size", "dpo.batch_size cpl.batch_size", ""),
    ("TRL", "bf16", "iqn.precision ppo.precision grpo.precision dpo.precision cpl.precision", "bfloat16 or float32"),
    ("TRL", "torch_compile", "iqn.compile ppo.compile grpo.compile dpo.compile cpl.compile", ""),
    ("SB3 and TRL", "eval_freq eval_steps", "evaluation.interval", "in environment steps"),
    ("SB3", "n_eval_episodes", "evaluation.episodes", ""),
    ("SB3 and TRL", "save_freq save_steps", "checkpoint.interval", "in environment steps"),
    ("TRL", "save_total_limit", "checkpoint.keep_last", ""),
    ("SB3 and TRL", "log_interval logging_steps", "logging.interval", "in environment steps"),
    ("SB3", "tensorboard_log", "logging.tensorboard", "true or false"),
    ("CleanRL and TRL", "track report_to", "logging.wandb", "true or false"),
    ("CleanRL", "cuda", "device", "cpu, cuda or cuda:N"),
)  # fmt: skip

FOREIGN_NAMES = {
    name: ForeignName(libraries, tuple(keys.split()), remark)
    for libraries, names, keys, remark in _ROWS
    for name in names.split()
}
"""Name -> its equivalent keys."""
