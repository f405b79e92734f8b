"""Rules about ``collectors:``."""

from __future__ import annotations

from collections.abc import Iterator

from tesserl_configs.algorithms import BUILT_IN, declared
from tesserl_configs.collectors import ProcessCollectors
from tesserl_configs.errors import Problem
from tesserl_configs.grpo import GRPOConfig
from tesserl_configs.preferences import PreferenceOptions
from tesserl_configs.run_keys import Rule, RunKeys


def workers_divide_the_environments(config: RunKeys) -> Iterator[Problem]:
    """Check that every worker gets the same number of environments."""
    number, collectors = config.environment.num_envs, config.collectors
    if isinstance(collectors, ProcessCollectors) and number % collectors.workers:
        yield Problem(
            "collectors.workers",
            f"expected a divisor of environment.num_envs = {number}, got {collectors.workers}; workers have "
            "equal numbers of environments",
        )


def the_algorithm_can_have_workers(config: RunKeys) -> Iterator[Problem]:
    """Check that processes collect only for algorithms that can learn from what they send."""
    if isinstance(config.collectors, ProcessCollectors) and not declared(config.algorithm).process_collectors:
        names = ", ".join(algorithm.name for algorithm in BUILT_IN.values() if algorithm.process_collectors)
        yield Problem(
            "collectors.kind", f"process is for algorithm {names}, got algorithm {config.algorithm}; choose local"
        )


def workers_collect_for_something(config: RunKeys) -> Iterator[Problem]:
    """Check that a run with workers does not learn from stored pairs alone."""
    options, source = config.options, config.pairs.source
    if not isinstance(config.collectors, ProcessCollectors) or not isinstance(options, PreferenceOptions):
        return
    if source.kind == "offline":
        yield Problem(
            "collectors.kind",
            "process plays in the environments, and pairs.source of kind offline does not; choose local",
        )


def rounds_have_one_size(config: RunKeys) -> Iterator[Problem]:
    """Check that a round can be begun before it is known which groups of the one before are of use."""
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
    workers_collect_for_something,
    rounds_have_one_size,
)
