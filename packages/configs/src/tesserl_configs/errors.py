"""The error that every invalid configuration raises, and its problems."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple


class Problem(NamedTuple):
    """One problem of a configuration."""

    path: str
    """Dotted path of the key, e.g. ``iqn.num_taus``; empty for the configuration as a whole."""

    message: str
    """Description of the mistake: expected, got, remedy."""

    def __str__(self) -> str:
        path = self.path if re.fullmatch(r"[\w.+-]{,200}", self.path) else shown(self.path)
        return f"{path}: {self.message}" if path else self.message


class ConfigError(ValueError):
    """A configuration that cannot be used.

    Args:
        *problems: all problems found.
    """

    def __init__(self, *problems: Problem | str) -> None:
        super().__init__(*problems)
        self.problems = problems

    @property
    def messages(self) -> tuple[str, ...]:
        """Return one line for each problem."""
        return tuple(map(str, self.problems))

    def __str__(self) -> str:
        return "\n".join(self.messages)


def shown(value: Any) -> str:
    """Return a value as text for a message, truncated if it is long."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
