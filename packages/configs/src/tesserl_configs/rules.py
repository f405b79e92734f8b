"""Check all rules between keys, and report all problems together."""

from __future__ import annotations

from collections.abc import Iterator

from tesserl_configs import collector_rules, environment_rules, graph_rules, nn_rules, size_rules
from tesserl_configs.algorithms import declared
from tesserl_configs.errors import Problem
from tesserl_configs.initial_weights import weights_source
from tesserl_configs.run_keys import RunKeys


def check(config: RunKeys) -> Iterator[Problem]:
    """Yield the problems of a configuration with all rules."""
    yield from nn_rules.check(config.nn, config.algorithm)
    if config.initial_weights is not None:
        yield from nn_rules.initial_parts_exist(config.nn, config.algorithm, weights_source(config.initial_weights)[1])
    for rule in (
        *environment_rules.RULES,
        *collector_rules.RULES,
        *size_rules.RULES,
        graph_rules.graphs_can_be_recorded,
        *declared(config.algorithm).rules,
    ):
        yield from rule(config)
