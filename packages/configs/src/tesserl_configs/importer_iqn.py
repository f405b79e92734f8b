"""``config import``, IQN: from ``nn.iqn:``, ``btr:``, ``exploration:`` and ``memory:`` to ``iqn:`` and ``replay:``."""

from __future__ import annotations

from typing import Any

from tesserl_configs.importer_source import Source, scheduled
from tesserl_configs.importer_training import import_optimizer

NEVER = 1e12
"""Frames beyond which the seed system means that something never happens."""


def import_iqn(source: Source) -> dict[str, Any]:
    """Our blocks ``iqn``, ``optimizer`` and ``replay``.

    Args:
        source: the seed system's file.
    """
    batch_size = int(source.take("training.batch_size", "iqn.batch_size", 512))
    if batch_size < 1:
        raise ValueError("it must be at least 1")
    return {
        "iqn": _iqn(source, batch_size),
        "optimizer": import_optimizer(source, batch_size=batch_size, weight_decay=0.1),
        "replay": {**_replay(source), **_use_of_replay(source)},
    }


def _iqn(source: Source, batch_size: int) -> dict[str, Any]:
    take = source.take
    num_taus = take("nn.iqn.n", "iqn.num_taus", 8, "and iqn.num_target_taus")
    discounts = take("training.gamma_schedule", "iqn.discount", [[0, 0.999], [2_500_000, 1.0]], "its last value")
    norm = take(
        "nn.training.clip_grad_norm", "iqn.max_grad_norm", 30, f"/ {batch_size}: its loss is a sum over the batch"
    )
    result = {
        "num_taus": num_taus,
        "num_target_taus": num_taus,
        "num_policy_taus": take("nn.iqn.k", "iqn.num_policy_taus", 32),
        "tau_sampling": "antithetic",
        "num_cosines": take("nn.iqn.embedding_dimension", "iqn.num_cosines", 128),
        "cosine_start": 1,
        "discount": discounts[-1][1],
        "num_steps": take("training.n_steps", "iqn.num_steps", 3),
        "double": take("nn.training.use_ddqn", "iqn.double", True),
        "kappa": take("nn.iqn.kappa", "iqn.kappa", 0.005),
        "self_loss_clamp_ratio": take("nn.training.target_self_loss_clamp_ratio", "iqn.self_loss_clamp_ratio", 4),
        "target_update": _target_update(source, batch_size),
        "batch_size": batch_size,
        "max_grad_norm": norm / batch_size,
        "exploration": _exploration(source),
        "compile": take("nn.training.use_jit", "iqn.compile", True),
    }
    if take("performance.apply_randomcrop_augmentation", "iqn.random_crop", False):
        result["random_crop"] = take("performance.n_pixels_to_crop_on_each_side", "iqn.random_crop", 2)
    result |= _reset(source, batch_size)
    if take("btr.use_munchausen", "iqn.munchausen", False):
        result["munchausen"] = _munchausen(source)
    return result


def _target_update(source: Source, batch_size: int) -> dict[str, Any]:
    key = "nn.training.number_memories_trained_on_between_target_network_updates"
    transitions = source.take(key, "iqn.target_update.interval", 2048, "it / batch_size: updates")
    rate = source.take("nn.training.soft_update_tau", "iqn.target_update.rate", 0.02)
    return {"kind": "soft", "rate": rate, "interval": max(1, transitions // batch_size)}


def _reset(source: Source, batch_size: int) -> dict[str, Any]:
    """The periodic reset where the file switches it on; there it counts frames, here updates."""
    frames = source.leaves.get("nn.training.reset_every_n_frames_generated")
    if frames is None or frames > NEVER:
        return {}
    take, block = source.take, "nn.training"
    reuse = source.leaves.get("memory.number_times_single_memory_is_used_before_discard") or 32
    text = f"frames * {reuse} uses / {batch_size}: updates"
    interval = take(f"{block}.reset_every_n_frames_generated", "iqn.reset.interval", frames, text)
    reset = {
        "interval": max(1, int(interval * reuse) // batch_size),
        "factor": take(f"{block}.overall_reset_mul_factor", "iqn.reset.factor", 0.01),
        "last_layer_factor": take(f"{block}.last_layer_reset_factor", "iqn.reset.last_layer_factor", 0.8),
    }
    return {"reset": reset}


def _munchausen(source: Source) -> dict[str, Any]:
    temperature = source.take("btr.munchausen_entropy_tau", "iqn.munchausen.temperature", 0.03)
    clip = source.take("btr.munchausen_lo", "iqn.munchausen.clip", -1.0, "* temperature: it clips the log itself")
    alpha = source.take("btr.munchausen_alpha", "iqn.munchausen.alpha", 0.9)
    return {"alpha": alpha, "temperature": temperature, "clip": clip * temperature}


def _exploration(source: Source) -> dict[str, Any]:
    key = "exploration.multi_action_exploration"
    if source.leaves.get("btr.use_noisy_linear"):
        return {"kind": "noisy"}
    per_block = source.take(key, "iqn.exploration.per_block", "per_action", "per_action is true") == "per_action"
    default = [[0, 1.0], [50_000, 1.0], [300_000, 0.1], [3_000_000, 0.03]]
    epsilon = scheduled(source, "exploration.epsilon_schedule", "iqn.exploration.epsilon", default)
    return {"kind": "epsilon", "epsilon": epsilon, "per_block": per_block}


def _use_of_replay(source: Source) -> dict[str, Any]:
    result = {
        "ratio": source.take("memory.number_times_single_memory_is_used_before_discard", "replay.ratio", 32),
        "test_fraction": source.take("memory.buffer_test_ratio", "replay.test_fraction", 0.05),
    }
    cut = source.take("training.discard_non_greedy_actions_in_nsteps", "replay.cut_at_exploration", True)
    if cut and source.take("training.n_steps", "iqn.num_steps", 3) > 1:
        result["cut_at_exploration"] = True
    return result


def _replay(source: Source) -> dict[str, Any]:
    sizes = source.take(
        "memory.memory_size_schedule",
        "replay.capacity",
        [[0, [50_000, 20_000]], [7_000_000, [200_000, 150_000]]],
        "the last size; the first learning start is warmup_steps",
    )
    result = {"kind": "uniform", "capacity": sizes[-1][1][0], "warmup_steps": sizes[0][1][1]}
    alpha = source.take("memory.prio_alpha", "replay.alpha", 0, "0 is kind uniform")
    if alpha:
        beta = source.take("memory.prio_beta", "replay.beta", 1)
        eps = source.take("memory.prio_epsilon", "replay.eps", 2e-3)
        result = {**result, "kind": "prioritized", "alpha": alpha, "beta": beta, "eps": eps}
    return result
