"""Write a configuration as YAML with a comment above each key, as ``tesserl init`` does."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from tesserl_configs.explain import Explanation, explain, inline

WIDTH = 100
"""Columns of a comment."""


def commented(data: Mapping[str, Any]) -> str:
    """Write keys as YAML with their descriptions as comments; the text loads to the same data."""
    return "\n".join(_lines(data, ())) + "\n"


def _lines(data: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """Yield the lines of a block."""
    indent = "  " * len(path)
    for key, value in data.items():
        if key == "kind":
            yield f"{indent}kind: {inline(value)}"
            continue
        forms = explain(".".join((*path, key)))
        explanation = next((form for form in forms if data.get("kind") in form.kinds), forms[0])
        if not path:
            yield ""
        for line in textwrap.wrap(explanation.meaning, WIDTH - len(indent)):
            yield f"{indent}# {line}"
        if _is_block(value, explanation):
            yield f"{indent}{key}:"
            yield from _lines(value, (*path, key))
        else:
            yield f"{indent}{key}: {inline(value)}"


def _is_block(value: Any, explanation: Explanation) -> bool:
    """Return whether the keys of a value are those of the schema, unlike arguments of a task and schedules."""
    return isinstance(value, Mapping) and bool(value) and bool(explanation.keys)
