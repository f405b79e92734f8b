"""Rules about ``collectors:``."""

from __future__ import annotations

from collections.abc import Iterator

from tesserl_configs.algorithms import BUILT_IN, declared
from tesserl_configs.collectors import LocalCollectors, ProcessCollectors, RayCollectors
from tesserl_configs.errors import Problem
from tesserl_configs.grpo import GRPOConfig
from tesserl_configs.preferences import PreferenceOptions
from tesserl_configs.run_keys import Rule, RunKeys


def workers_divide_the_environments(config: RunKeys) -> Iterator[Problem]:
    """Check that every worker gets the same number of environments."""
    number, collectors = config.environment.num_envs, config.collectors
    if not isinstance(collectors, LocalCollectors) and number % collectors.workers:
        yield Problem(
            "collectors.workers",
            f"expected a divisor of environment.num_envs = {number}, got {collectors.workers}; workers have "
            "equal numbers of environments",
        )


def the_algorithm_can_have_workers(config: RunKeys) -> Iterator[Problem]:
    """Check that the algorithm supports worker processes."""
    kind = config.collectors.kind
    if kind != "local" and not declared(config.algorithm).process_collectors:
        names = ", ".join(algorithm.name for algorithm in BUILT_IN.values() if algorithm.process_collectors)
        yield Problem(
            "collectors.kind", f"{kind} is for algorithm {names}, got algorithm {config.algorithm}; choose local"
        )


def free_workers_feed_a_replay(config: RunKeys) -> Iterator[Problem]:
    """Check that algorithms with a replay, and no others, take chunks in order of arrival."""
    collectors = config.collectors
    if isinstance(collectors, LocalCollectors):
        return
    stores = "replay" in declared(config.algorithm).blocks
    turns = "fixed" if isinstance(collectors, ProcessCollectors) else "sync"
    if collectors.mode == "async" and not stores:
        yield Problem(
            "collectors.mode",
            f"async is for algorithms with a replay, got algorithm {config.algorithm}; choose {turns}",
        )
    if isinstance(collectors, RayCollectors) and collectors.mode == "sync" and stores:
        yield Problem(
            "collectors.mode",
            f"sync is for algorithms without a replay, got algorithm {config.algorithm}; choose async",
        )


def workers_collect_for_something(config: RunKeys) -> Iterator[Problem]:
    """Refuse workers for a run that learns from stored pairs alone."""
    options, source = config.options, config.pairs.source
    kind = config.collectors.kind
    if kind == "local" or not isinstance(options, PreferenceOptions):
        return
    if source.kind == "offline":
        yield Problem(
            "collectors.kind",
            f"{kind} plays in the environments, and pairs.source of kind offline does not; choose local",
        )


def rounds_have_one_size(config: RunKeys) -> Iterator[Problem]:
    """Refuse ``delay`` with resampling, which must judge the groups of a round before the next one begins."""
    collectors, options = config.collectors, config.options
    if not isinstance(collectors, ProcessCollectors) or not isinstance(options, GRPOConfig):
        return
    if collectors.delay and options.zero_variance.kind == "resample":
        yield Problem(
            "collectors.delay",
            "grpo.zero_variance of kind resample needs 0, got 1; the next groups are begun before these are judged",
        )


RULES: tuple[Rule, ...] = (
    workers_divide_the_environments,
    the_algorithm_can_have_workers,
    free_workers_feed_a_replay,
    workers_collect_for_something,
    rounds_have_one_size,
)
