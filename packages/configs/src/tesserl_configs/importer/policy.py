"""``config import``, policies: from ``ppo:``, ``grpo:`` and ``dpo:`` of the seed system to ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tesserl_configs.importer.source import Source, last_or_number, scheduled_or_number
from tesserl_configs.importer.training import import_optimizer

PLACE_OF_PAIRS = "PAIRS"
"""Placeholder for the directory of pairs."""


def import_ppo(source: Source) -> dict[str, Any]:
    """Return our blocks ``ppo`` and ``optimizer``; the steps of a rollout are divided among the environments."""
    take, num_envs = source.take, source.value("performance.gpu_collectors_count", 4)  # one environment per collector
    num_minibatches = take("ppo.num_minibatches", "ppo.num_minibatches", 4)
    text = f"/ {num_envs} environments, and a multiple of the minibatches"
    steps = take("ppo.rollout_steps_per_update", "ppo.num_steps", 2048, text)
    discounts = ["training.policy_rollout_gamma_schedule", "ppo.ppo_gamma_schedule"]
    scalar = "training.policy_rollout_gamma"
    value_clip = take("ppo.clip_coef_vf", "ppo.value_clip", None)
    block = {
        "num_steps": max(1, steps // (num_envs * num_minibatches)) * num_minibatches,
        "num_epochs": take("ppo.update_epochs", "ppo.num_epochs", 4),
        "num_minibatches": num_minibatches,
        "discount": last_or_number(
            source, "ppo.gamma" if source.leaves.get(scalar) is None else scalar, "ppo.discount", 0.99, discounts
        ),
        "gae_lambda": last_or_number(source, "ppo.gae_lambda", "ppo.gae_lambda", 0.95),
        "clip_epsilon": take("ppo.clip_coef", "ppo.clip_epsilon", 0.2),
        "value_clip": value_clip if value_clip and value_clip > 0 else None,
        "value_coef": last_or_number(source, "ppo.vf_coef", "ppo.value_coef", 0.5),
        "entropy_coef": scheduled_or_number(source, "ppo.ent_coef", "ppo.entropy_coef", 0.01),
        "normalize_advantage": take(
            "ppo.normalize_advantages", "ppo.normalize_advantage", True, "by minibatch, there over the whole rollout"
        ),
        "max_grad_norm": take("ppo.max_grad_norm", "ppo.max_grad_norm", 0.5),
        "orthogonal_init": False,
    }
    return {"ppo": block, "optimizer": import_optimizer(source)}


def import_grpo(source: Source) -> dict[str, Any]:
    """Return our blocks ``grpo`` and ``optimizer``."""
    take, key = source.take, "grpo.grpo"
    num_epochs = take(f"{key}_update_epochs", "grpo.num_epochs", 4)
    mode = take(f"{key}_normalize_group", "grpo.advantages.scale", "mean", "mean: none, mean_std: group")
    block = {
        "group_size": take(f"{key}_group_size", "grpo.group_size", 4, "of one start; there of any"),
        "num_groups": 1,
        "discount": 1.0,
        "advantages": {"kind": "trajectory", "scale": "group" if mode == "mean_std" else "none"},
        # several epochs need a ratio, which the seed system does not have
        "loss": {"kind": "reinforce" if num_epochs == 1 else "clip"},
        "reduction": "dapo",  # every step counts the same, as in its sums
        "entropy_coef": scheduled_or_number(source, f"{key}_ent_coef", "grpo.entropy_coef", 0.01),
        "kl": _penalty(source, num_epochs),
        "num_epochs": num_epochs,
        "max_grad_norm": last_or_number(source, f"{key}_max_grad_norm", "grpo.max_grad_norm", 0.5),
        "orthogonal_init": False,
    }
    return {"grpo": block, "optimizer": import_optimizer(source)}


def _penalty(source: Source, num_epochs: int) -> dict[str, Any] | None:
    coef = scheduled_or_number(source, "grpo.grpo_ref_kl_coef", "grpo.kl.coef", 0.0)
    if coef == 0 or (isinstance(coef, dict) and not any(value for _, value in coef["knots"])):
        return None
    text = f"updates: times its {num_epochs} epochs"
    groups = source.take("grpo.grpo_ref_sync_every_updates", "grpo.kl.reference.interval", 50, text)
    return {"coef": coef, "reference": {"kind": "sync", "interval": groups * num_epochs}}


def import_dpo(source: Source) -> dict[str, Any]:
    """Return our blocks ``dpo``, ``pairs`` and ``optimizer``."""
    take = source.take
    num_epochs = max(1, take("dpo.dpo_update_epochs", "pairs.source.num_epochs", 4))
    mode = take("dpo.dpo_data_mode", "pairs.source.kind", "online")
    syncs = take(
        "dpo.dpo_ref_sync_every_updates", "dpo.reference.interval", 1, f"updates: times its {num_epochs} epochs"
    )
    fresh = {"num_groups": 1, "group_size": 2, "pairs_per_iteration": 1, "buffer_size": 1, "num_epochs": num_epochs}
    pairs = {
        "kind": mode,
        **({} if mode == "online" else {"path": PLACE_OF_PAIRS}),
        **({} if mode == "offline" else fresh),
    }
    block = {
        "loss": {"kind": "sigmoid"},
        "beta": scheduled_or_number(source, "dpo.dpo_beta", "dpo.beta", 0.1),
        "reference": {"kind": "sync", "interval": max(1, syncs) * num_epochs},
        "batch_size": 1,
        "max_grad_norm": last_or_number(source, "dpo.dpo_max_grad_norm", "dpo.max_grad_norm", 0.5),
        "orthogonal_init": False,
    }
    return {"dpo": block, "pairs": {"source": pairs, "holdout_fraction": 0.0}, "optimizer": import_optimizer(source)}


IMPORTS: dict[str, Callable[[Source], dict[str, Any]]] = {
    "ppo": import_ppo,
    "grpo": import_grpo,
    "dpo": import_dpo,
}
"""Name of an algorithm with a policy -> the function that reads its blocks."""
