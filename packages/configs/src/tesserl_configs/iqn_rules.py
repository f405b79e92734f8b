"""Rules about ``iqn:`` and ``replay:``, one function each; they apply if the algorithm is iqn."""

from __future__ import annotations

from collections.abc import Iterator

from tesserl_configs.errors import Problem
from tesserl_configs.iqn import IQNConfig
from tesserl_configs.replay import PrioritizedReplay
from tesserl_configs.run_keys import Rule, RunKeys
from tesserl_configs.size_rules import losses_fit_into_memory, replays_fit_on_a_disk


def antithetic_taus_come_in_pairs(config: RunKeys) -> Iterator[Problem]:
    """Require even numbers of antithetic fractions: each tau has its mirror image 1 - tau."""
    if config.iqn.tau_sampling != "antithetic":
        return
    for name in ("num_taus", "num_target_taus", "num_policy_taus"):
        count = getattr(config.iqn, name)
        if count % 2:
            yield Problem(
                f"iqn.{name}", f"expected an even number, as tau_sampling is antithetic, got {count}; or use stratified"
            )


def fixed_fractions_are_not_drawn(config: RunKeys) -> Iterator[Problem]:
    """Refuse options about drawn and embedded fractions if fractions are fixed."""
    if config.iqn.num_fixed_quantiles is None:
        return
    drawn = ("tau_sampling", "policy_tau_sampling", "num_taus", "num_target_taus", "num_policy_taus")
    for name in (*drawn, "num_cosines", "cosine_start", "cosine_activation"):
        if getattr(config.iqn, name) != IQNConfig.model_fields[name].default:
            yield Problem(f"iqn.{name}", "iqn.num_fixed_quantiles leaves no fraction to draw or to embed; remove it")
    if "embedding" in config.nn.freeze or config.nn.learning_rate_factors.embedding != 1:
        yield Problem("iqn.num_fixed_quantiles", "this network has no part embedding, which nn names; remove it there")


def horizons_have_a_clock(config: RunKeys) -> Iterator[Problem]:
    """Check that a fixed horizon has a clock in the observation, which is not normalised by running statistics."""
    if config.iqn.fixed_horizon is None:
        return
    if all(wrapper.kind != "clock" for wrapper in config.environment.wrappers):
        yield Problem(
            "iqn.fixed_horizon", "needs a clock in the observation; add {kind: clock} to environment.wrappers"
        )
    if config.nn.vector.kind == "mlp" and config.nn.vector.normalization.kind == "running":
        yield Problem(
            "nn.vector.normalization.kind",
            "running statistics are those of acting, where the clock of iqn.fixed_horizon is 0; choose fixed or none",
        )


def images_can_be_cropped(config: RunKeys) -> Iterator[Problem]:
    """Check that there are images to crop."""
    if config.iqn.random_crop is not None and not config.nn.may_see_images:
        yield Problem("iqn.random_crop", "is for images and nn.vision has kind none; remove it")


def noisy_exploration_has_noise(config: RunKeys) -> Iterator[Problem]:
    """Check that noisy exploration has noisy layers."""
    if config.iqn.exploration.kind == "noisy" and not config.nn.heads.noisy:
        yield Problem(
            "iqn.exploration.kind", "noisy explores by the noise of the heads; set nn.heads.noisy: true or use epsilon"
        )


def warmup_ends(config: RunKeys) -> Iterator[Problem]:
    """Check that the warm-up ends before the run, and before the buffer is overwritten."""
    warmup = config.replay.warmup_steps
    for name, limit in (("total_steps", config.total_steps), ("replay.capacity", config.replay.capacity)):
        if warmup > limit:
            yield Problem("replay.warmup_steps", f"expected at most {name} = {limit}, got {warmup}")


def warmup_fills_a_batch(config: RunKeys) -> Iterator[Problem]:
    """Check that the warm-up fills a batch, without the last n - 1 steps of each environment, which are incomplete."""
    open_steps = (config.iqn.num_steps - 1) * config.environment.num_envs
    least = config.iqn.batch_size + open_steps
    if config.replay.warmup_steps < least:
        yield Problem(
            "replay.warmup_steps",
            f"expected at least {least}, got {config.replay.warmup_steps}: the first update needs iqn.batch_size = "
            f"{config.iqn.batch_size} finished transitions"
            + (f", {open_steps} steps are still open then (num_steps - 1 in each environment)" if open_steps else ""),
        )


def batches_fit_the_buffer(config: RunKeys) -> Iterator[Problem]:
    """Check that a batch fits into the buffer."""
    if config.iqn.batch_size > config.replay.capacity:
        yield Problem(
            "iqn.batch_size",
            f"expected at most replay.capacity = {config.replay.capacity}, got {config.iqn.batch_size}",
        )


def updates_are_paced_once(config: RunKeys) -> Iterator[Problem]:
    """Require exactly one of ``iqn.update_interval`` and ``replay.ratio``, which both set the pace of updates."""
    interval, ratio = config.iqn.update_interval, config.replay.ratio
    if interval is not None and ratio is not None:
        yield Problem(
            "replay.ratio",
            f"expected null beside iqn.update_interval = {interval}, got {ratio:g}; write one of the two",
        )
    if interval is None and ratio is None:
        yield Problem("iqn.update_interval", "expected a number of steps without replay.ratio, got null; write one")


def weights_have_one_exponent(config: RunKeys) -> Iterator[Problem]:
    """Check that ``beta`` is not set if importance weights use alpha as their exponent."""
    replay, default = config.replay, PrioritizedReplay.model_fields["beta"].default
    if replay.kind == "prioritized" and replay.weight_exponent == "alpha" and replay.beta != default:
        yield Problem("replay.beta", "is not used where replay.weight_exponent is alpha; remove one of the two")


def shared_frames_are_there(config: RunKeys) -> Iterator[Problem]:
    """Check that there are images if frames are shared."""
    if config.replay.share_frames and not config.nn.may_see_images:
        yield Problem(
            "replay.share_frames", "is for images and nn.vision has kind none; choose an encoder there or write null"
        )


def cut_windows_have_several_steps(config: RunKeys) -> Iterator[Problem]:
    """Check that windows have more than one step if exploration cuts them."""
    if config.replay.cut_at_exploration and config.iqn.num_steps == 1:
        yield Problem(
            "replay.cut_at_exploration", "shortens windows, and iqn.num_steps = 1 leaves nothing to cut; raise it"
        )


RULES: tuple[Rule, ...] = (
    antithetic_taus_come_in_pairs,
    fixed_fractions_are_not_drawn,
    horizons_have_a_clock,
    images_can_be_cropped,
    noisy_exploration_has_noise,
    warmup_ends,
    warmup_fills_a_batch,
    batches_fit_the_buffer,
    updates_are_paced_once,
    weights_have_one_exponent,
    shared_frames_are_there,
    losses_fit_into_memory,
    replays_fit_on_a_disk,
    cut_windows_have_several_steps,
)
