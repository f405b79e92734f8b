"""``config import``, IQN: from ``nn.iqn:``, ``btr:``, ``exploration:`` and ``memory:`` to ``iqn:`` and ``replay:``."""

from __future__ import annotations

from typing import Any

from tesserl_configs.importer.source import Source, last_value, scheduled
from tesserl_configs.importer.training import import_optimizer

NEVER = 1e12
"""Number of frames above which the seed system means never."""


def import_iqn(source: Source) -> dict[str, Any]:
    """Return our blocks ``iqn``, ``optimizer`` and ``replay``."""
    batch_size = source.take("training.batch_size", "iqn.batch_size", 512)
    if batch_size < 1:
        raise ValueError("expected at least 1")
    _mend_the_clip(source)
    return {
        "iqn": _iqn(source, batch_size),
        "optimizer": import_optimizer(source, batch_size=batch_size, weight_decay=0.1),
        "replay": {**_replay(source), **_use_of_replay(source)},
    }


def _iqn(source: Source, batch_size: int) -> dict[str, Any]:
    take = source.take
    num_taus = take("nn.iqn.n", "iqn.num_taus", 8, "and iqn.num_target_taus")
    discount = last_value(source, "training.gamma_schedule", "iqn.discount", 1.0)
    limit = source.value("nn.training.clip_grad_norm", 30)
    text = f"{limit:g} / {batch_size}: its loss is a sum over the batch"
    norm = take("nn.training.clip_grad_norm", "iqn.max_grad_norm", 30, text)
    result = {
        "num_taus": num_taus,
        "num_target_taus": num_taus,
        "num_policy_taus": take("nn.iqn.k", "iqn.num_policy_taus", 32),
        "tau_sampling": "antithetic",
        "num_cosines": take("nn.iqn.embedding_dimension", "iqn.num_cosines", 128),
        "cosine_start": 1,
        "cosine_activation": "leaky_relu",
        "discount": discount,
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
    result |= {"fixed_horizon": _horizon(source)} | _reset(source, batch_size)
    if take("btr.use_munchausen", "iqn.munchausen", False):
        result["munchausen"] = _munchausen(source)
    return result


def _horizon(source: Source) -> dict[str, Any]:
    """Return our fixed horizon; all values of the seed system have one, with a clock in the observation."""
    take, target = source.take, "iqn.fixed_horizon.steps"
    step = take("environment.ms_per_tm_engine_step", target, 10, "ms of a step of the game")
    actions = len(source.value("environment.rl_action_offsets_ms", [0]))
    if actions > 1:
        text = f"{actions} actions of {step} ms; the task has them as a MultiDiscrete space with equal entries"
        take("environment.rl_action_offsets_ms", target, None, text)
    else:
        actions = take("environment.tm_engine_step_per_action", target, 5, "steps of the game for each action")
    text = f"/ {step * actions} ms for each action; {{kind: clock}} in environment.wrappers counts them"
    steps = take("environment.temporal_mini_race_duration_ms", target, 7000, text) // (step * actions)
    if steps < 1:
        raise ValueError(f"expected at least {step * actions}, the ms of an action")
    return {"steps": steps, "start_fraction": _start_fraction(source, steps)}


def _start_fraction(source: Source, horizon: int) -> float:
    """Return the probability of setting the clock to 0, in addition to uniform draws of 0."""
    # There a clock is max(0, |x| - short) of a uniform x in [short - long, horizon + short): clock 0 comes of
    # min(long, 2 short) + 1 of horizon + long numbers, and clocks up to long - 2 short of two numbers each.
    target = "iqn.fixed_horizon.start_fraction"
    text = "as the share of clock 0; there the clocks behind it come twice as often too"
    long = source.take("training.oversample_long_term_steps", target, 40, text)
    short = source.take("training.oversample_maximum_term_steps", target, 5, text)
    if horizon == 1:
        return 0.0
    share = (min(long, 2 * short) + 1) / (horizon + long)
    return round(min(1.0, max(0.0, (horizon * share - 1) / (horizon - 1))), 6)


def _target_update(source: Source, batch_size: int) -> dict[str, Any]:
    key = "nn.training.number_memories_trained_on_between_target_network_updates"
    transitions = source.value(key, 2048)
    text = f"{transitions} / {batch_size}: updates"
    transitions = source.take(key, "iqn.target_update.interval", transitions, text)
    rate = source.take("nn.training.soft_update_tau", "iqn.target_update.rate", 0.02)
    return {"kind": "soft", "rate": rate, "interval": max(1, transitions // batch_size)}


def resets(source: Source) -> bool:
    """Return whether the file enables the periodic reset."""
    return bool(source.value("nn.training.reset_every_n_frames_generated", NEVER + 1) <= NEVER)


def _reset(source: Source, batch_size: int) -> dict[str, Any]:
    """Return the periodic reset if the file enables it; the seed system counts frames, we count updates."""
    if not resets(source):
        return {}
    take, block = source.take, "nn.training"
    reuse = source.value("memory.number_times_single_memory_is_used_before_discard", 32)
    extra = source.value(f"{block}.additional_transition_after_reset", 1_600_000)
    if extra:
        source.mend(
            "iqn.reset",
            f"there {extra:,} transitions more are learned from after each reset; no extra updates here: raise "
            "replay.ratio, or accept it",
            f"{block}.additional_transition_after_reset",
        )
    text = f"frames * {reuse} uses / {batch_size}: updates"
    interval = take(f"{block}.reset_every_n_frames_generated", "iqn.reset.interval", 0, text)
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
    if source.value("btr.use_noisy_linear", False):
        sigma = source.value("btr.noisy_sigma0", 0.5)
        if sigma != 0.5:
            text = f"the noise begins at {sigma:g} there and at 0.5 here; files have no key for it: accept it"
            source.mend("nn.heads.noisy", text, "btr.noisy_sigma0")
        return {"kind": "noisy"}
    _mend_exploration(source)
    per_block = source.take(key, "iqn.exploration.per_block", "per_action", "per_action is true") == "per_action"
    default = [[0, 1.0], [50_000, 1.0], [300_000, 0.1], [3_000_000, 0.03]]
    epsilon = scheduled(source, "exploration.epsilon_schedule", "iqn.exploration.epsilon", default)
    return {"kind": "epsilon", "epsilon": epsilon, "per_block": per_block}


def _mend_exploration(source: Source) -> None:
    """Note the seed system's exploration by noise on the values, which we do not have."""
    block = "exploration"
    knots = source.value(f"{block}.epsilon_boltzmann_schedule", [[0, 0.15], [3_000_000, 0.03]])
    scale = source.value(f"{block}.tau_epsilon_boltzmann", 0.01)
    if scale and any(share for _, share in knots):
        source.mend(
            "iqn.exploration",
            f"there a part of the steps ({knots[0][1]:g}, in the end {knots[-1][1]:g}) takes the best of values with "
            f"normal noise of deviation {scale:g} (epsilon_boltzmann_schedule, tau_epsilon_boltzmann); there is none "
            "here: accept epsilon alone, or choose kind boltzmann",
            f"{block}.epsilon_boltzmann_schedule",
            f"{block}.tau_epsilon_boltzmann",
        )


def _mend_the_clip(source: Source) -> None:
    """Note the seed system's clipping of gradients by value, if it has an effect."""
    limit, norm = source.value("nn.training.clip_grad_value", 1000), source.value("nn.training.clip_grad_norm", 30)
    if limit < norm:
        source.mend(
            "iqn.max_grad_norm",
            f"there each gradient is clipped to {limit:g} too, behind the norm of {norm:g}; here they are clipped by "
            "their norm alone: lower it, or accept it",
            "nn.training.clip_grad_value",
        )


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
    default = [[0, [50_000, 20_000]], [7_000_000, [200_000, 150_000]]]
    sizes = source.value("memory.memory_size_schedule", default)
    text = f"its last size, {sizes[-1][1][0]:,}; warmup_steps is its first learning start, {sizes[0][1][1]:,}"
    sizes = source.take("memory.memory_size_schedule", "replay.capacity", default, text)
    result = {"kind": "uniform", "capacity": sizes[-1][1][0], "warmup_steps": sizes[0][1][1]}
    alpha = source.take("memory.prio_alpha", "replay.alpha", 0, "0 is kind uniform")
    if alpha:
        beta = source.take("memory.prio_beta", "replay.beta", 1)
        eps = source.take("memory.prio_epsilon", "replay.eps", 2e-3)
        result = {**result, "kind": "prioritized", "alpha": alpha, "beta": beta, "eps": eps}
    return result
