"""Rules about ``collectors:``."""

from __future__ import annotations

from collections.abc import Iterator

from tesserl_configs.algorithms import BUILT_IN, declared
from tesserl_configs.collectors import ProcessCollectors
from tesserl_configs.errors import Problem
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
        names = " and ".join(algorithm.name for algorithm in BUILT_IN.values() if algorithm.process_collectors)
        yield Problem(
            "collectors.kind", f"process is for algorithm {names}, got algorithm {config.algorithm}; choose local"
        )


RULES: tuple[Rule, ...] = (workers_divide_the_environments, the_algorithm_can_have_workers)
