"""The file of the seed system while it is converted, and the notes about its keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tesserl_configs.document import join

TO_MEND = "to mend: "
"""Prefix of the key of a note about a change by hand."""


class Note(NamedTuple):
    """One sentence about one key."""

    key: str
    """Dotted path in the seed system's file, or in ours after ``to mend``."""

    target: str
    """Dotted path in our file; empty if the key has no counterpart."""

    text: str
    """Conversion of the value, or the reason why there is no counterpart."""

    def __str__(self) -> str:
        if not self.target:
            return f"{self.key}: {self.text}"
        return f"{self.key} -> {self.target}" + (f" ({self.text})" if self.text else "")


@dataclass
class Source:
    """The file of the seed system, with notes about the keys that were read.

    Keys have their names in releases with ``nn``, also for older files; notes have the names in the file.
    """

    leaves: dict[str, Any]
    """Dotted path -> value, without mappings."""
    blocks: set[str]
    """Dotted paths of all mappings, including empty ones."""
    written: Mapping[str, str] = field(default_factory=dict)
    """Dotted path -> path in the file, if the two differ."""
    is_older: bool = False
    """True for a file of a release with ``neural_network``."""
    notes: list[Note] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Keys, as written in the file, that change the experiment and could not be converted."""
    last: str = ""

    @property
    def algorithm(self) -> str:
        """Return the name of the algorithm that the file trains."""
        return str(self.value("training.algorithm", "iqn"))

    def name(self, key: str) -> str:
        """Return a key as written in the file."""
        return self.written.get(key, key)

    def take(self, key: str, target: str, default: Any, text: str = "") -> Any:
        """Return the value of a key and note that it became ``target``; an unset key has the default."""
        self.last = self.name(key)
        if self.leaves.get(key) is None:
            return default
        self.notes.append(Note(self.name(key), target, text))
        return self.leaves[key]

    def value(self, key: str, default: Any = None) -> Any:
        """Return the value of a key without a note, or the default if the file does not set it."""
        value = self.leaves.get(key)
        return default if value is None else value

    def has(self, block: str) -> bool:
        """Return whether the file has a block, which may be empty."""
        return block in self.blocks

    def mend(self, place: str, text: str, *keys: str) -> None:
        """Note a change by hand at a path of ours, and mark keys of the seed system as lost."""
        self.notes.append(Note(f"{TO_MEND}{place}", "", text))
        self.lost += [self.name(key) for key in keys if self.value(key) is not None]


def leaves_of(data: Mapping[Any, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, value) of all values in nested data except mappings."""
    for key, value in data.items():
        here = join(path, str(key))
        if isinstance(value, dict):
            yield from leaves_of(value, here)
        else:
            yield here, value


def blocks_of(data: Mapping[Any, Any], path: str = "") -> Iterator[str]:
    """Yield the dotted paths of all mappings in nested data."""
    for key, value in data.items():
        if isinstance(value, dict):
            here = join(path, str(key))
            yield here
            yield from blocks_of(value, here)


def scheduled(source: Source, key: str, target: str, default: list[list[Any]], kind: str = "exponential") -> Any:
    """Convert a schedule of the seed system to ours; an exponential one with a value of 0 becomes linear."""
    written = source.value(key) is not None
    speed = source.take("training.global_schedule_speed", "knots of the schedules", 1, "multiplied in")
    knots = [[int(step * speed) if written else step, value] for step, value in source.take(key, target, default)]
    return {"kind": kind if all(value > 0 for _, value in knots) else "linear", "knots": knots}


def scheduled_or_number(source: Source, key: str, target: str, default: float) -> Any:
    """Return the schedule ``<key>_schedule`` if the file has it, else the number."""
    if source.value(f"{key}_schedule"):
        return scheduled(source, f"{key}_schedule", target, [], "linear")
    return source.take(key, target, default)


def last_value(source: Source, key: str, target: str, default: float) -> Any:
    """Return the last value of a schedule, for a key of ours that takes a number."""
    knots = source.value(key)
    text = f"its last value, {knots[-1][1]:g}; a number here" if knots else ""
    return source.take(key, target, [[0, default]], text)[-1][1]


def last_or_number(source: Source, key: str, target: str, default: float, schedules: Sequence[str] = ()) -> Any:
    """Return the last value of the first schedule in the file, by default ``<key>_schedule``, else the number."""
    for schedule in schedules or (f"{key}_schedule",):
        if source.value(schedule):
            return last_value(source, schedule, target, default)
    return source.take(key, target, default)
