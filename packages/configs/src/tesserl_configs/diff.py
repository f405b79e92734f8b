"""Differences between two configurations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tesserl_configs.document import join
from tesserl_configs.loader import as_data
from tesserl_configs.schema import RunConfig


class Difference(NamedTuple):
    """One key with different values."""

    path: str
    """Dotted path."""

    left: Any
    """Plain value in the first configuration; None if it is null, or if the kind chosen there has no such key."""

    right: Any
    """Plain value in the second configuration, or None, as for ``left``."""


def diff_configs(left: RunConfig, right: RunConfig) -> list[Difference]:
    """Return the keys in which two configurations differ, in the order of the schema; lists are compared whole."""
    first, second = flat_data(left), flat_data(right)
    paths = [*first, *(path for path in second if path not in first)]
    values = (Difference(path, first.get(path), second.get(path)) for path in paths)
    return [difference for difference in values if difference.left != difference.right]


def flat_data(config: RunConfig) -> dict[str, Any]:
    """Return the plain values of a configuration by their dotted keys."""
    return dict(_leaves(as_data(config)))


def _leaves(data: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        here = join(path, key)
        if isinstance(value, dict) and value:
            yield from _leaves(value, here)
        else:
            yield here, value
