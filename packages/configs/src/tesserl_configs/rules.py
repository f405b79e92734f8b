"""Rules between keys: all of them are checked and all problems reported together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tesserl_configs import (
    environment_rules,
    grpo_rules,
    iqn_rules,
    nn_rules,
    ppo_rules,
    preference_rules,
    size_rules,
)
from tesserl_configs.errors import Problem

if TYPE_CHECKING:
    from tesserl_configs.schema import RunConfig

Rule = Callable[["RunConfig"], Iterator[Problem]]

OF_ALGORITHM: dict[str, tuple[Rule, ...]] = {
    "iqn": iqn_rules.RULES,
    "ppo": ppo_rules.RULES,
    "grpo": grpo_rules.RULES,
    "dpo": preference_rules.DPO_RULES,
    "cpl": preference_rules.CPL_RULES,
}


def check(config: RunConfig) -> Iterator[Problem]:
    """Everything in a configuration that breaks a rule."""
    yield from nn_rules.check(config.nn, config.algorithm)
    for rule in (*environment_rules.RULES, *size_rules.RULES, *OF_ALGORITHM[config.algorithm]):
        yield from rule(config)
