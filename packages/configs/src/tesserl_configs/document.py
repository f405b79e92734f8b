"""Convert YAML text to plain data with the line of each key, and back.

Scalars follow YAML 1.2: ``1e-4`` is a number, ``010`` is ten, ``yes`` and ``12:30`` are text. PyYAML follows YAML 1.1,
which differs in all four. ``60_000`` is a number, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_DEPTH = 32
MAX_NODES = 100_000
"""Bounds for the depth and size that aliases can give a small file."""

_PREFIX = "tag:yaml.org,2002:"
_PATTERNS = {  # in this order: the first that matches the whole scalar wins
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9][0-9_]*", list("-+0123456789")),
    "float": (
        r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's name for it


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - a file without anchors is easier to read
        return True


for _tag, (_pattern, _first) in _PATTERNS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_PREFIX + _tag, re.compile(rf"(?:{_pattern})\Z"), _first)
_Dumper.add_representer(tuple, lambda dumper, data: dumper.represent_sequence(_PREFIX + "seq", data, flow_style=True))
_Dumper.add_representer(list, lambda dumper, data: dumper.represent_sequence(_PREFIX + "seq", data, flow_style=True))


class DocumentError(ValueError):
    """Error in a YAML text; ``line`` counts from 1 and is None if unknown."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


@dataclass
class Document:
    """Plain data and the line of each key and list entry."""

    data: Any = None
    lines: dict[str, int] = field(default_factory=dict)  # dotted path -> line, counted from 1
    errors: list[DocumentError] = field(default_factory=list)  # such as a duplicate key; the rest is still checked


def parse(text: str) -> Document:
    """Read one YAML document.

    Args:
        text: the document.

    Raises:
        DocumentError: it is not YAML, holds several documents, or is nested too deeply.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = "; ".join(filter(None, (error.context, error.problem)))
        raise DocumentError(f"not valid YAML{where}: {what}", mark.line + 1 if mark else None) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise DocumentError(f"not valid YAML: {error.reason}, #x{ord(text[error.position]):04x}", line) from error
    except RecursionError as error:
        raise DocumentError(f"not valid YAML: nested more deeply than {MAX_DEPTH} levels") from error
    except (OverflowError, ValueError, yaml.YAMLError) as error:  # such as an escape beyond Unicode
        raise DocumentError(f"not valid YAML: {' '.join(str(error).split())}") from error
    document = Document()
    if node is not None:
        document.data = _Reader(document).read(node, "", 0)
    return document


def render(data: Any) -> str:
    """Write plain data as YAML that `parse` reads back to the same data; each list is on one line."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=False)


def join(path: str, key: str | int) -> str:
    """Return the dotted path of an entry."""
    return f"{path}.{key}" if path else str(key)


def ancestors(path: str) -> Iterator[str]:
    """Yield a dotted path, the path above it, and so on up to the empty one."""
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""


UNWRITABLE = "half of a surrogate pair is no character; write the character itself"


def _is_writable(text: str) -> bool:
    """Return whether a text can be encoded: it has no half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


class _Reader:
    """Convert PyYAML's nodes to data; PyYAML's own constructor drops lines and accepts duplicate keys."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._nodes = 0

    def read(self, node: yaml.Node, path: str, depth: int) -> Any:
        line = node.start_mark.line + 1
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise DocumentError("nested too deeply or too large; an alias that contains itself?", line)
        tag = node.tag.removeprefix(_PREFIX)
        fitting = {yaml.MappingNode: ("map",), yaml.SequenceNode: ("seq",), yaml.ScalarNode: ("str", *_PATTERNS)}
        if tag not in fitting[type(node)]:
            raise DocumentError(f"the tag {node.tag} is not allowed; write plain values", line)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return self._sequence(node, path, depth)
        return self._scalar(tag, node.value, line)

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._document.errors.append(DocumentError(f"{path or 'the file'}: a key must be text", line))
                continue
            key = str(key_node.value)
            here = join(path, key)
            if key == "<<":
                self._document.errors.append(DocumentError(f"{here}: merge keys are not read; write the keys", line))
                continue
            if not _is_writable(key):
                self._document.errors.append(DocumentError(f"{path or 'the file'}: {UNWRITABLE}", line))
                continue
            if key in result:
                first = self._document.lines[here]
                self._document.errors.append(
                    DocumentError(f"{here}: the key is repeated, first in line {first}; remove one", line)
                )
                continue
            self._document.lines[here] = line
            result[key] = self.read(value_node, here, depth + 1)
        return result

    def _sequence(self, node: yaml.SequenceNode, path: str, depth: int) -> list[Any]:
        result = []
        for index, entry in enumerate(node.value):
            here = join(path, index)
            self._document.lines[here] = entry.start_mark.line + 1
            result.append(self.read(entry, here, depth + 1))
        return result

    def _scalar(self, tag: str, text: str, line: int) -> Any:
        try:
            match tag:
                case "null":
                    return None
                case "bool":
                    return text.lower() == "true"
                case "int":
                    return int(text.replace("_", ""))
                case "float":
                    return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
                case _ if not _is_writable(text):
                    raise DocumentError(UNWRITABLE, line)
                case _:
                    return text
        except ValueError as error:
            raise DocumentError(f"{text!r:.60} is not of type {tag}", line) from error
