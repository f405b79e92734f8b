"""Apply ``--set a.b=value`` to the data of a file before validation."""

from __future__ import annotations

from typing import Any

from tesserl_configs.document import DocumentError, join, parse
from tesserl_configs.errors import ConfigError, shown
from tesserl_configs.introspection import default_at


def apply_override(data: Any, override: str, *, name: str = "--set") -> str:
    """Apply one override ``a.b=value`` to plain data in place; return its dotted path."""
    path, equals, text = override.partition("=")
    path = path.strip()
    parts = path.split(".")
    if not equals or not all(parts):
        example = " with a dotted key, such as iqn.num_taus=16" if name == "--set" else ""
        raise ConfigError(f"{name} {override}: expected KEY=VALUE{example}")
    try:
        document = parse(text)
    except DocumentError as error:
        raise ConfigError(f"{name} {override}: {error}") from error
    if document.errors:
        raise ConfigError(f"{name} {override}: {document.errors[0]}")
    here, whole = "", data
    for part in parts[:-1]:
        data, here = _descend(data, part, here, override, whole), join(here, part)
    if isinstance(data, list):
        data[_index(data, parts[-1], here, override)] = document.data
    elif isinstance(data, dict):
        data[parts[-1]] = document.data
    else:
        raise _not_a_container(data, here, override)
    return path


def _descend(data: Any, part: str, here: str, override: str, whole: Any) -> Any:
    if isinstance(data, list):
        return data[_index(data, part, here, override)]
    if not isinstance(data, dict):
        raise _not_a_container(data, here, override)
    if data.get(part) is None:
        data[part] = _starting_point(default_at(join(here, part), whole))
    return data[part]


def _starting_point(default: Any) -> Any:
    """Return the value in which an override changes one part, if the file does not set it."""
    if isinstance(default, tuple):
        return [_starting_point(entry) if isinstance(entry, tuple) else entry for entry in default]
    kind = getattr(default, "kind", None)
    return {} if kind is None else {"kind": kind}


def _index(data: list[Any], part: str, here: str, override: str) -> int:
    if part.isdecimal() and len(part) < 10 and int(part) < len(data):
        return int(part)
    entries = f"entries 0 to {len(data) - 1}" if data else "no entries"
    raise ConfigError(f"--set {override}: {here} has {entries}, got {part}; set the whole list to add one")


def _not_a_container(data: Any, here: str, override: str) -> ConfigError:
    return ConfigError(f"--set {override}: {here} is {shown(data)}, which has no keys; set {here} itself")
