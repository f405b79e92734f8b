"""Read YAML files and the files that they extend, with the file and line of each key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tesserl_configs.algorithms import find, owners_of
from tesserl_configs.document import Document, DocumentError, join, parse
from tesserl_configs.errors import ConfigError, shown

MOST_BYTES = 2**20
"""Largest size of a file; no configuration needs more, and reading it would take minutes."""

EXTENDS = "extends"

Order = tuple[int, int]
"""Number of the file (0 is the loaded one) and line; problems are sorted by it."""


class Place(NamedTuple):
    """File and line of a key."""

    path: Path
    line: int
    number: int = 0
    """Number of files that extend this one."""

    @property
    def order(self) -> Order:
        """Return the position among the problems of all files."""
        return self.number, self.line

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass
class Extended:
    """Data of a file, merged with those of the files that it extends."""

    data: dict[str, Any]  # without extends
    places: dict[str, Place]
    errors: list[tuple[Order, str]]  # errors in the text of the files
    files: tuple[Path, ...]  # the file and those that it extends


def read_extended(path: Path, below: tuple[Path, ...] = ()) -> Extended:
    """Read a file and the files that it extends; ``below`` are the files that extend it, the loaded one first."""
    document, number = read_document(path), len(below)
    places = {key: Place(path, line, number) for key, line in document.lines.items()}
    own = Extended(
        document.data,
        places,
        [((number, error.line or 0), f"{path}:{error.line}: {error}") for error in document.errors],
        (path,),
    )
    name = own.data.pop(EXTENDS, None)
    if name is None:
        return own
    base = _base_of(name, path, places.pop(EXTENDS), (*below, path))
    extended = read_extended(base, (*below, path))
    _without_what_is_not_inherited(extended, own.data)
    _merge(extended.data, own.data, extended.places, "")
    errors, files = own.errors + extended.errors, own.files + extended.files
    return Extended(extended.data, extended.places | own.places, errors, files)


def _base_of(name: Any, path: Path, place: Place, chain: tuple[Path, ...]) -> Path:
    """Return the file that ``extends`` names, relative to the file that holds the key; refuse circles."""
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"{place}: {EXTENDS}: expected the name of a file, got {shown(name)}")
    try:
        base = path.parent / Path(name).expanduser()
        is_file, files, target = base.is_file(), [each.resolve() for each in chain], base.resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{place}: {EXTENDS}: {shown(name)} is no name of a file: {error}") from error
    if target in files:
        circle = " -> ".join(map(str, [*chain[files.index(target) :], base]))
        raise ConfigError(
            f"{place}: {EXTENDS}: files extend each other in a circle ({circle}); remove one of these keys"
        )
    if not is_file:
        raise ConfigError(
            f"{place}: {EXTENDS}: there is no file {base}; the name is relative to the file that extends it"
        )
    return base


def _without_what_is_not_inherited(base: Extended, data: Mapping[str, Any]) -> None:
    """Remove the name of the run, and the blocks that the chosen algorithm does not read."""
    dropped = ["name"]
    chosen, before = data.get("algorithm"), base.data.get("algorithm")
    if chosen is not None and chosen != before and find(chosen) is not None:
        owners = {block: owners_of(block, chosen) for block in base.data if isinstance(block, str)}
        dropped += [block for block, names in owners.items() if names and chosen not in names]
    for key in dropped:
        base.data.pop(key, None)
        _forget(base.places, key)


def _merge(base: dict[str, Any], data: Mapping[str, Any], places: dict[str, Place], path: str) -> None:
    """Merge data into a base, in place: merge mappings of the same kind, replace everything else."""
    for key, value in data.items():
        here, before = join(path, key), base.get(key)
        if (
            isinstance(before, dict)
            and isinstance(value, dict)
            and value.get("kind", before.get("kind")) == before.get("kind")
        ):
            _merge(before, value, places, here)
        else:
            base[key] = value
            _forget(places, here)


def _forget(places: dict[str, Place], path: str) -> None:
    """Remove the places of a key and of everything in it."""
    for key in [key for key in places if key == path or key.startswith(f"{path}.")]:
        del places[key]


def read_document(path: Path) -> Document:
    """Read a YAML file that holds keys and values."""
    try:
        text = _bytes_of(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: expected UTF-8 text, got byte 0x{error.object[error.start]:02x} at {error.start}; "
            "save the file as UTF-8"
        ) from error
    try:
        document = parse(text)
    except DocumentError as error:
        raise ConfigError(f"{path}:{error.line}: {error}" if error.line else f"{path}: {error}") from error
    if document.data is None:
        raise ConfigError(f"{path}: the file is empty; expected keys and values")
    if not isinstance(document.data, dict):
        raise ConfigError(f"{path}: expected keys and values, got {type(document.data).__name__} at the top level")
    return document


def _bytes_of(path: Path) -> bytes:
    """Return the content of a file."""
    try:
        is_directory, content = path.is_dir(), b""
        if not is_directory:
            with path.open("rb") as file:
                content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # the second: a path with a NUL
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if is_directory:
        raise ConfigError(f"{path}: expected a YAML file, got a directory; name a file in it")
    if len(content) > MOST_BYTES:
        raise ConfigError(f"{path}: expected at most {MOST_BYTES:,} bytes, got more; is this a configuration?")
    return content
