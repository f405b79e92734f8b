"""Explain a key of the schema: meaning, type, range, default, source, and the algorithms and kinds that have it."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tesserl_configs.algorithms import installed, owners_of
from tesserl_configs.base import plain
from tesserl_configs.defaults import ADAM_KINDS
from tesserl_configs.document import render
from tesserl_configs.errors import ConfigError, Problem
from tesserl_configs.foreign_names import FOREIGN_NAMES
from tesserl_configs.introspection import blocks_in, blocks_with, kinds_of
from tesserl_configs.schedules import Schedule
from tesserl_configs.schema import complete_class

SOURCE = re.compile(r"^(?P<meaning>.*\S) \((?P<source>[^()]*(?:\([^()]*\)[^()]*)*)\)$", re.DOTALL)
OF_A_SOURCE = re.compile(r"\d{4}|paper|code|details|torch|CleanRL|TRL|Rainbow|IMPALA|Atari|[A-Z]\w*: ")

LOWER, UPPER = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")
"""Names of bounds in JSON Schema, the inclusive one first."""


@dataclass(frozen=True)
class Key:
    """A key in a list of the keys of a block."""

    name: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Explanation:
    """Explanation of a key; a key with different forms in different kinds has several.

    Args:
        path: dotted path of the key.
        kinds: the kinds of its block that have it in this form; empty if all have.
        algorithms: names of the algorithms that read it; empty if all do.
        meaning: its description.
        type: type and range.
        default: as YAML, with the default of each algorithm that has a different one.
        source: source of the default; empty if none is given.
        keys: for a block, kind -> keys; a block without kinds has one entry, under the empty name.
    """

    path: str
    kinds: tuple[str, ...]
    algorithms: tuple[str, ...]
    meaning: str
    type: str
    default: str
    source: str
    keys: dict[str, tuple[Key, ...]]

    def __str__(self) -> str:
        rows = {
            "kind": ", ".join(self.kinds),
            "algorithm": ", ".join(self.algorithms) or "all",
            "type": self.type,
            "default": self.default,
            "source": self.source,
        }
        lines = [self.path, f"  {self.meaning}", *(f"  {name:<10}{text}" for name, text in rows.items() if text)]
        for kind, keys in self.keys.items():
            lines += [f"  keys of kind {kind}:" if kind else "  keys:", *([] if keys else ["    none"])]
            width = max((len(key.name) for key in keys), default=0) + 2
            lines += [f"    {key.name:<{width}}{key.meaning} [{key.default}]" for key in keys]
        return "\n".join(lines)


def explain(path: str = "") -> list[Explanation]:
    """Explain a key or a block of the schema.

    Args:
        path: dotted path, such as ``ppo.clip_epsilon``, without numbers of list entries. It may name the kind of a
            block: ``nn.vision.cnn``. Empty: the top level.

    Raises:
        ConfigError: there is no such key.
    """
    root = complete_class()
    if not path:
        return [Explanation("top level", (), (), "Keys of a file.", "keys and values", "", "", {"": _keys_of(root)})]
    blocks: tuple[type[BaseModel], ...] = (root,)
    fields: list[tuple[type[BaseModel], FieldInfo]] = []
    parts = [part for part in path.split(".") if not part.isdecimal()]
    for number, part in enumerate(parts):
        found = [(block, block.model_fields[part]) for block in blocks if part in block.model_fields]
        of_kind = tuple(block for block in blocks if part in kinds_of(block))
        if found:
            fields = found
            blocks = tuple(dict.fromkeys(inner for _, field in found for inner in blocks_in(field.annotation)))
        elif of_kind and fields:
            blocks = of_kind
        else:
            raise ConfigError(Problem(path, _unknown(part, parts[:number], blocks)))
    owners = owners_of(parts[0], parts[0])
    last = parts[-1] if any(parts[-1] in block.model_fields for block, _ in fields) else parts[-2]
    return list(_explanations(path, last, fields, blocks, owners))


def _explanations(
    path: str,
    key: str,
    fields: Iterable[tuple[type[BaseModel], FieldInfo]],
    inner: tuple[type[BaseModel], ...],
    algorithms: tuple[str, ...],
) -> Iterator[Explanation]:
    """Yield one explanation for each form of a key."""
    forms: dict[tuple[str, str, str], list[str]] = {}
    for block, field in fields:
        schema = _schema_of(block)
        form = (
            field.description or str(block.__doc__),
            type_text(schema["properties"][key], schema),
            default_text(field),
        )
        forms.setdefault(form, []).extend(kinds_of(block))
    listed = [block for block in inner if block is not Schedule]
    keys = {", ".join(kinds_of(block)): _keys_of(block) for block in listed}
    for (description, type_, default), kinds in forms.items():
        meaning, source = _split(description)
        defaults = "; ".join([default, *_defaults_by_algorithm(path, kinds)])
        yield Explanation(path, tuple(kinds), algorithms, meaning, type_, defaults, source, keys)


@functools.cache
def _schema_of(block: type[BaseModel]) -> dict[str, Any]:
    return block.model_json_schema()


def _keys_of(block: type[BaseModel]) -> tuple[Key, ...]:
    return tuple(
        Key(name, default_text(field), field.description or "")
        for name, field in block.model_fields.items()
        if name != "kind"
    )


def _split(description: str) -> tuple[str, str]:
    """Split a description into its meaning and its source, which stands in brackets at the end."""
    found = SOURCE.match(description.strip().rstrip("."))
    if found is None or not OF_A_SOURCE.search(found["source"]):
        return description, ""
    return f"{found['meaning']}.", found["source"]


def _defaults_by_algorithm(path: str, kinds: list[str]) -> Iterator[str]:
    """Yield the defaults of algorithms that replace that of the schema, for these kinds of the block."""
    names: dict[str, list[str]] = {}
    block, _, key = path.rpartition(".")
    of_adam = block == "optimizer" and bool(set(kinds) & set(ADAM_KINDS))
    for algorithm in installed() if of_adam or path == "nn.heads.hidden_sizes" else ():
        if of_adam and key in algorithm.optimizer:
            names.setdefault(plain(algorithm.optimizer[key]), []).append(algorithm.name)
        if not of_adam and algorithm.hidden_sizes is not None:
            names.setdefault(inline(algorithm.hidden_sizes), []).append(algorithm.name)
    return (f"{default} for {', '.join(algorithms)}" for default, algorithms in names.items())


def _unknown(name: str, above: list[str], blocks: tuple[type[BaseModel], ...]) -> str:
    """Return the message about a key that does not exist at this path."""
    legal = list(dict.fromkeys(key for block in blocks for key in block.model_fields))
    legal += [kind for block in blocks if len(blocks) > 1 for kind in kinds_of(block)]
    where = ".".join(above)
    if name in FOREIGN_NAMES and not above:
        return f"unknown key; {FOREIGN_NAMES[name].sentence(name, FOREIGN_NAMES[name].keys)}"
    if near := difflib.get_close_matches(name, legal, n=3, cutoff=0.7):
        return f"unknown key; did you mean {', '.join(f'{where}.{key}'.lstrip('.') for key in near)}?"
    places = sorted(f"{block}.{name}".lstrip(".") for block in blocks_with(name))
    if places:
        return f"unknown key here; did you mean {', '.join(places[:3])}?"
    return f"unknown key; legal here: {', '.join(legal)}" if legal else f"unknown key; {where} has no keys"


def type_text(schema: dict[str, Any], whole: dict[str, Any]) -> str:
    """Return type and range of a value in words.

    Args:
        schema: JSON Schema of the value.
        whole: the schema that holds the definitions.
    """
    if "$ref" in schema:
        kind = whole["$defs"][schema["$ref"].rpartition("/")[2]].get("properties", {}).get("kind", {})
        kinds = kind.get("enum", [kind["const"]] if "const" in kind else [])
        if schema["$ref"].endswith("/Schedule"):
            return f"a schedule of kind {' or '.join(kinds)}"
        return f"keys of kind {' or '.join(kinds)}" if kinds else "keys and values"
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            options = list(dict.fromkeys(type_text(option, whole) for option in schema[choice]))
            return " or ".join(options[:1] + [option.removeprefix("keys of kind ") for option in options[1:]])
    if "const" in schema or "enum" in schema:
        return " or ".join(str(value) for value in schema.get("enum", [schema.get("const")]))
    if "prefixItems" in schema:
        return f"list of {', '.join(type_text(item, whole) for item in schema['prefixItems'])}"
    if schema.get("type") == "array":
        return f"list of {type_text(schema.get('items', {}), whole)}"
    names = {"integer": "whole number", "boolean": "true or false", "string": "text", "object": "keys and values"}
    return names.get(str(schema.get("type")), str(schema.get("type", "any value"))) + bounds_text(schema)


def bounds_text(schema: dict[str, Any]) -> str:
    """Return the range of a number in a JSON Schema, such as `` in [0, 1)``; empty without one."""
    low, high = (next((schema[key] for key in keys if key in schema), None) for keys in (LOWER, UPPER))
    if low is None or high is None:
        return ""
    start, end = "(" if LOWER[1] in schema else "[", ")" if UPPER[1] in schema else "]"
    return f" in {start}{plain(low)}, {plain(high)}{end}"


def default_text(field: FieldInfo) -> str:
    """Return the default of a key as it would stand in YAML, or ``required``."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        kind = {"kind": value.kind} if hasattr(value, "kind") else {}
        value = {**kind, **value.model_dump(mode="json", exclude_defaults=True)}
    return inline(value)


def inline(value: Any) -> str:
    """Return a value as YAML on one line."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {inline(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(inline, value))}]"
    return render(value).removesuffix("\n").removesuffix("\n...")
