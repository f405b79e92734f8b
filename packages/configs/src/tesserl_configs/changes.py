"""Changes of a run's keys by another file, and the place of each change for error messages."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tesserl_configs.errors import ConfigError
from tesserl_configs.loader import load_config
from tesserl_configs.schema import RunConfig


@dataclass(frozen=True)
class Change:
    """One key of a run that a task, a variant, a search or the command line sets."""

    override: str
    place: str  # file and line, or option, that sets it; for messages

    @property
    def key(self) -> str:
        """Return the dotted key."""
        return self.override.partition("=")[0].strip()

    @classmethod
    def to(cls, key: str, value: Any, place: str) -> Change:
        """Return the change that sets a key to plain data."""
        return cls(f"{key}={json.dumps(value, ensure_ascii=False)}", place)


def changes_of_command_line(overrides: Iterable[str]) -> list[Change]:
    """Return the changes that ``--set`` makes."""
    return [Change(override, f"--set {override.partition('=')[0]}") for override in overrides]


def base_file(path: Path, base: str, *, place: str, kind: str) -> Path:
    """Return the file that the runs of a sweep or search start from, named relative to its file."""
    start = path.parent / base
    if not start.is_file():
        raise ConfigError(f"{place}: there is no file {start}; paths are relative to the file of the {kind}")
    return start


def load_changed(start: Path, changes: Iterable[Change]) -> RunConfig:
    """Read the file of a run and apply changes in order; a problem has the place of the last change of its key."""
    changes = tuple(changes)
    try:
        return load_config(start, [change.override for change in changes])
    except ConfigError as error:
        raise ConfigError(*(_replaced(message, changes) for message in error.messages)) from error


def _replaced(message: str, changes: Iterable[Change]) -> str:
    """Replace ``--set KEY`` in a message of ``load_config`` by the place that set the key last."""
    found = message
    for change in changes:
        for start in (f"--set {change.key}: ", f"--set {change.override}: "):
            if message.startswith(start):
                found = f"{change.place}: {message.removeprefix(start)}"
    return found
