"""Rules between keys: one function each, all of them are checked and all problems reported together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tesserl_configs import nn_rules
from tesserl_configs.errors import Problem

if TYPE_CHECKING:
    from tesserl_configs.schema import RunConfig

Rule = Callable[["RunConfig"], Iterator[Problem]]


def check(config: RunConfig) -> Iterator[Problem]:
    """Everything in a configuration that breaks a rule."""
    return itertools.chain.from_iterable(rule(config) for rule in RULES)


def the_network_fits_together(config: RunConfig) -> Iterator[Problem]:
    """The rules of `nn_rules`."""
    return nn_rules.check(config.nn, config.algorithm)


def stacked_frames_are_seen(config: RunConfig) -> Iterator[Problem]:
    """Frame stacks are images."""
    for index, wrapper in enumerate(config.environment.wrappers):
        if wrapper.kind == "frame_stack" and config.nn.vision.kind == "none":
            yield Problem(
                f"environment.wrappers.{index}",
                "frame_stack stacks images and nn.vision has kind none; choose an encoder there or remove the wrapper",
            )


def clipped_rewards_have_a_range(config: RunConfig) -> Iterator[Problem]:
    """The bounds of a clip enclose something."""
    for index, wrapper in enumerate(config.environment.wrappers):
        if wrapper.kind == "reward_clip" and wrapper.low >= wrapper.high:
            yield Problem(
                f"environment.wrappers.{index}.low", f"expected less than high = {wrapper.high:g}, got {wrapper.low:g}"
            )


def wrappers_wrap_single_environments(config: RunConfig) -> Iterator[Problem]:
    """A task's own vectorised form is not made of environments that could be wrapped."""
    if config.environment.vectorization == "vector_entry_point" and config.environment.wrappers:
        yield Problem(
            "environment.wrappers",
            "wrap single environments, vectorization vector_entry_point has none; "
            "remove them or choose vectorization sync",
        )


def antithetic_taus_come_in_pairs(config: RunConfig) -> Iterator[Problem]:
    """Every antithetic fraction tau has its mirror image 1 - tau."""
    if config.iqn.tau_sampling != "antithetic":
        return
    for name in ("num_taus", "num_target_taus"):
        count = getattr(config.iqn, name)
        if count % 2:
            yield Problem(
                f"iqn.{name}", f"expected an even number, as tau_sampling is antithetic, got {count}; or use stratified"
            )


def noisy_exploration_has_noise(config: RunConfig) -> Iterator[Problem]:
    """Exploring by noise needs layers that make it."""
    if config.iqn.exploration.kind == "noisy" and not config.nn.heads.noisy:
        yield Problem(
            "iqn.exploration.kind", "noisy explores by the noise of the heads; set nn.heads.noisy: true or use epsilon"
        )


def warmup_ends(config: RunConfig) -> Iterator[Problem]:
    """There is learning after the warm-up, from a buffer that has not been overwritten."""
    warmup = config.replay.warmup_steps
    for name, limit in (("total_steps", config.total_steps), ("replay.capacity", config.replay.capacity)):
        if warmup > limit:
            yield Problem("replay.warmup_steps", f"expected at most {name} = {limit}, got {warmup}")


def warmup_fills_a_batch(config: RunConfig) -> Iterator[Problem]:
    """The first batch is drawn from at least as many transitions; n - 1 steps of each environment are still open."""
    open_steps = (config.iqn.num_steps - 1) * config.environment.num_envs
    least = config.iqn.batch_size + open_steps
    if config.replay.warmup_steps < least:
        yield Problem(
            "replay.warmup_steps",
            f"expected at least {least}, got {config.replay.warmup_steps}: the first update needs iqn.batch_size = "
            f"{config.iqn.batch_size} finished transitions"
            + (f", {open_steps} steps are still open then (num_steps - 1 in each environment)" if open_steps else ""),
        )


def batches_fit_the_buffer(config: RunConfig) -> Iterator[Problem]:
    """A batch is a part of the buffer."""
    if config.iqn.batch_size > config.replay.capacity:
        yield Problem(
            "iqn.batch_size",
            f"expected at most replay.capacity = {config.replay.capacity}, got {config.iqn.batch_size}",
        )


RULES: tuple[Rule, ...] = (
    the_network_fits_together,
    stacked_frames_are_seen,
    clipped_rewards_have_a_range,
    wrappers_wrap_single_environments,
    antithetic_taus_come_in_pairs,
    noisy_exploration_has_noise,
    warmup_ends,
    warmup_fills_a_batch,
    batches_fit_the_buffer,
)
