"""The file of the seed system while it is read, and what became of its keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tesserl_configs.document import join


class Note(NamedTuple):
    """What became of one key."""

    key: str
    """Dotted path in the seed system's file, or in ours where the note begins with ``to mend``."""

    target: str
    """Dotted path in our file; empty where the key has no counterpart."""

    text: str
    """The conversion, or why there is no counterpart."""

    def __str__(self) -> str:
        if not self.target:
            return f"{self.key}: {self.text}"
        return f"{self.key} -> {self.target}" + (f" ({self.text})" if self.text else "")


@dataclass
class Source:
    """The file of the seed system; remembers what was taken from it."""

    data: dict[str, Any]
    leaves: dict[str, Any]
    """Dotted path -> value of everything that holds no keys itself."""
    notes: list[Note] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    last: str = ""

    def take(self, key: str, target: str, default: Any, text: str = "") -> Any:
        """The value of a key, noted as carried over to ``target``; the seed system's default where it is silent."""
        self.taken.add(key)
        self.last = key
        if self.leaves.get(key) is None:
            return default
        self.notes.append(Note(key, target, text))
        return self.leaves[key]

    def has(self, block: str) -> bool:
        """Whether a block stands in the file, be it an empty one."""
        value: Any = self.data
        for key in block.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return isinstance(value, dict)


def source_of(data: dict[str, Any]) -> Source:
    """The source of the data of a file."""
    return Source(data, dict(_leaves(data)))


def _leaves(data: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        here = join(path, key)
        if isinstance(value, dict):
            yield from _leaves(value, here)
        else:
            yield here, value


def scheduled(source: Source, key: str, target: str, default: list[list[Any]], kind: str = "exponential") -> Any:
    """A schedule of the seed system as one of ours.

    Args:
        source: the seed system's file.
        key: dotted path of its knots.
        target: dotted path of our key.
        default: the knots where the file is silent; they are not stretched there either.
        kind: how the seed system goes from knot to knot; a knot of 0 makes an exponential one linear (there, it fails).
    """
    written = source.leaves.get(key) is not None
    speed = source.take("training.global_schedule_speed", "knots of the schedules", 1, "multiplied in")
    knots = [[int(step * speed) if written else step, value] for step, value in source.take(key, target, default)]
    return {"kind": kind if all(value > 0 for _, value in knots) else "linear", "knots": knots}


def scheduled_or_number(source: Source, key: str, target: str, default: float) -> Any:
    """A number that may have a schedule, ``<key>_schedule``, which goes before it.

    Args:
        source: the seed system's file.
        key: dotted path of the number.
        target: dotted path of our key, which takes a schedule too.
        default: the number where the file is silent.
    """
    if source.leaves.get(f"{key}_schedule"):
        return scheduled(source, f"{key}_schedule", target, [], "linear")
    return source.take(key, target, default)


def last_or_number(source: Source, schedules: list[str], key: str, target: str, default: float) -> Any:
    """A number that may have a schedule there and has none here: its last value.

    Args:
        source: the seed system's file.
        schedules: dotted paths of the knots, the first that the file has goes before all else.
        key: dotted path of the number.
        target: dotted path of our key.
        default: the number where the file is silent.
    """
    for schedule in schedules:
        if source.leaves.get(schedule):
            return source.take(schedule, target, [], "its last value")[-1][1]
    return source.take(key, target, default)
