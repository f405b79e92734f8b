"""Rules about ``pairs:``, ``dpo:`` and ``cpl:``, one function each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tesserl_configs.errors import Problem

if TYPE_CHECKING:
    from tesserl_configs.schema import RunConfig

REFERENCE_FREE = ("simpo", "orpo")
AVERAGED = ("sigmoid_norm", "simpo", "orpo")


def starts_can_be_set(config: RunConfig) -> Iterator[Problem]:
    """A start is set in single environments."""
    if config.pairs.source.kind != "offline" and config.environment.vectorization == "vector_entry_point":
        yield Problem(
            "environment.vectorization",
            "online pairs give each environment its start, those of vector_entry_point are reset together; choose sync",
        )


def lengths_have_a_range(config: RunConfig) -> Iterator[Problem]:
    """The shortest segment is not longer than the longest one."""
    source = config.pairs.source
    if source.kind == "offline" or source.segments.kind != "variable":
        return
    segments = source.segments
    if segments.min_length > segments.max_length:
        yield Problem(
            "pairs.source.segments.min_length",
            f"expected at most max_length = {segments.max_length}, got {segments.min_length}",
        )


def pretraining_has_data(config: RunConfig) -> Iterator[Problem]:
    """Before the first step there are stored pairs alone."""
    block = config.dpo if config.algorithm == "dpo" else config.cpl
    if block.pretraining is not None and config.pairs.source.kind == "online":
        yield Problem(
            f"{config.algorithm}.pretraining",
            "is on stored pairs, and pairs.source has kind online; set it to null or choose offline or both",
        )


def references_are_read(config: RunConfig) -> Iterator[Problem]:
    """Some losses compare with no reference."""
    kind = config.dpo.loss.kind
    if kind in REFERENCE_FREE and config.dpo.reference.kind != "none":
        yield Problem(
            "dpo.reference",
            f"{kind} compares with no reference, got {config.dpo.reference.kind}; set it to {{kind: none}}",
        )


def averages_are_taken_once(config: RunConfig) -> Iterator[Problem]:
    """Some losses are of averages anyway."""
    if config.dpo.loss.kind in AVERAGED and config.dpo.length_normalize:
        yield Problem("dpo.length_normalize", f"{config.dpo.loss.kind} averages by itself; set it to false")


Rule = Callable[["RunConfig"], Iterator[Problem]]

_COMMON: tuple[Rule, ...] = (starts_can_be_set, lengths_have_a_range, pretraining_has_data)
DPO_RULES: tuple[Rule, ...] = (*_COMMON, references_are_read, averages_are_taken_once)
CPL_RULES: tuple[Rule, ...] = _COMMON
