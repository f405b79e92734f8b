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
