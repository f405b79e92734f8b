"""The file of a sweep: its keys, their places in the file, and its problems."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from tesserl_configs.base import NAME_PATTERN, Block, Name, Seed, Text
from tesserl_configs.document import Document, ancestors
from tesserl_configs.errors import ConfigError
from tesserl_configs.files import read_document
from tesserl_configs.messages import NAME_RULE, nearest, problems_of

OWN_KEYS = {"seed": "seeds", "name": "name"}
"""Key of a run that the sweep sets itself -> the key of the sweep that controls it."""


class SweepConfig(Block):
    """The file of a sweep; every run is a base configuration with some keys changed."""

    name: Name | None = Field(default=None, description="Name of the sweep and of its directory; null: the file's.")
    config: Text | None = Field(
        default=None,
        description=(
            "File that the runs start from, relative to the file of the sweep; {task} and {variant} are replaced by "
            "the names. A task or a variant may name another file."
        ),
    )
    seeds: tuple[Seed, ...] = Field(min_length=1, description="Seeds of each variant, >= 0, all different.")
    tasks: dict[Name, dict[str, Any] | None] = Field(
        default_factory=dict,
        description="Tasks, each with the keys of a run that it changes, dotted as for --set; may hold `config`.",
    )
    variants: dict[Name, dict[str, Any] | None] = Field(
        min_length=1,
        description=(
            "Variants, each with the keys of a run that it changes after those of the task; may hold `config`, and "
            "`tasks`, the names of its tasks (default: all)."
        ),
    )


@dataclass(frozen=True)
class SweepFile:
    """The file of a sweep, before its runs are built."""

    path: Path
    document: Document
    config: SweepConfig

    def place(self, key: str) -> str:
        """Return ``file:line: key``; the line is that of the nearest key above if this one is not written."""
        return place_of(self.path, self.document, key)

    def changes(self, block: str, name: str | None) -> dict[str, Any]:
        """Return an entry of ``tasks`` or ``variants``; empty if there is no such entry."""
        return (getattr(self.config, block).get(name) if name else None) or {}

    def refusals(self) -> Iterator[str]:
        """Yield messages about keys that only the sweep sets, and about variants for unknown tasks."""
        for block in ("tasks", "variants"):
            for name in getattr(self.config, block):
                for key in filter(OWN_KEYS.__contains__, self.changes(block, name)):
                    place = self.place(f"{block}.{name}.{key}")
                    yield f"{place}: every run has its own; set it with {OWN_KEYS[key]} of the sweep"
        for name in self.config.variants:
            wanted = self.changes("variants", name).get("tasks")
            place = self.place(f"variants.{name}.tasks")
            if wanted is not None and (not isinstance(wanted, list) or not wanted):
                yield f"{place}: expected a list of tasks, got {json.dumps(wanted)}"
            else:
                for task in wanted or ():
                    yield from unknown_names(place, (str(task),), self.config.tasks)


def read_sweep_file(path: Path) -> SweepFile:
    """Read the file of a sweep, but not the files that its runs start from; every problem has its place."""
    document, config = read_block(path, SweepConfig)
    if len(set(config.seeds)) < len(config.seeds):
        raise ConfigError(f"{place_of(path, document, 'seeds')}: a seed is repeated; write each one once")
    return SweepFile(path, document, config)


Root = TypeVar("Root", bound=Block)


def read_block(path: Path, root: type[Root]) -> tuple[Document, Root]:
    """Read a file whose keys are those of a block; every problem has its place."""
    document = read_document(path)
    problems = [f"{path}:{error.line}: {error}" for error in document.errors]
    try:
        config = root.model_validate(document.data)
    except ValidationError as error:
        found = problems_of(error, document.data, root)
        problems += [f"{place_of(path, document, key)}: {message}" for key, message in found]
    if problems:
        raise ConfigError(*problems)
    return document, config


def directory_name(path: Path, name: str | None) -> str:
    """Return the name of a directory of runs, by default that of their file."""
    if not re.fullmatch(NAME_PATTERN, name or path.stem):
        raise ConfigError(f"{path}: {NAME_RULE}; got {name or path.stem!r}")
    return name or path.stem


def unknown_names(place: str, names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return a message for each unknown name, with the nearest known one."""
    known = tuple(known)
    return [
        f"{place}: there is no {name}{nearest(name, known) or '; there are: ' + (', '.join(known) or 'none')}"
        for name in names
        if name not in known
    ]


def place_of(path: Path, document: Document, key: str) -> str:
    """Return ``file:line: key``; the line is that of the nearest key above if this one is not written."""
    line = next((document.lines[above] for above in ancestors(key) if above in document.lines), None)
    return f"{path}:{line}: {key}" if line else f"{path}: {key}"
