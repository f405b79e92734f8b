"""Rules about ``iqn:`` and ``replay:``, one function each; they hold where the algorithm is iqn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tesserl_configs.errors import Problem

if TYPE_CHECKING:
    from tesserl_configs.schema import RunConfig


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


RULES: tuple[Callable[[RunConfig], Iterator[Problem]], ...] = (
    antithetic_taus_come_in_pairs,
    noisy_exploration_has_noise,
    warmup_ends,
    warmup_fills_a_batch,
    batches_fit_the_buffer,
)
