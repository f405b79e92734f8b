"""From pydantic's errors to sentences that say expected, got and remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from tesserl_configs.algorithms import find, owners_of
from tesserl_configs.base import ONE_LINE, plain
from tesserl_configs.btr import ALL_TAG, OPTIONS_TAG, SWITCH_TAG
from tesserl_configs.errors import ConfigError, Problem, shown
from tesserl_configs.foreign_names import FOREIGN_NAMES
from tesserl_configs.introspection import all_keys, candidates, entry_at, field_at, kinds_of, literals_in
from tesserl_configs.schedules import NUMBER_TAG, SCHEDULE_TAG
from tesserl_configs.schema import OWNED

TAGS = (NUMBER_TAG, SCHEDULE_TAG, SWITCH_TAG, OPTIONS_TAG, ALL_TAG)
"""Tags of unions that no key of a file chooses by."""

BOUNDS = {
    "greater_than": ("gt", ">"),
    "greater_than_equal": ("ge", ">="),
    "less_than": ("lt", "<"),
    "less_than_equal": ("le", "<="),
}
TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
}


def problems_of(error: ValidationError, data: Any) -> Iterator[Problem]:
    """Yield one problem for each of pydantic's errors.

    Args:
        error: what validating ``data`` raised.
        data: the data of the whole file.
    """
    for details in error.errors(include_url=False):
        cause = details.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError):  # the rules between keys, which know their paths
            yield from (problem for problem in cause.problems if isinstance(problem, Problem))
            continue
        path = _path(details["loc"], data)
        yield Problem(".".join(map(str, path)), _message(details, path, data))


def _path(location: Iterable[str | int], data: Any) -> list[str | int]:
    """Return the keys of pydantic's location, without the tags of unions between them."""
    path: list[str | int] = []
    fresh = True  # no tag of this place has been seen yet
    for part in location:
        if part in TAGS:
            continue
        if fresh and isinstance(data, dict) and data.get("kind") == part and len(candidates(path, data)) != 1:
            fresh = False
            continue
        path.append(part)
        fresh = True
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            data = None
    return path


def _message(details: Mapping[str, Any], path: list[str | int], data: Any) -> str:
    kind, context, got = details["type"], details.get("ctx", {}), shown(details["input"])
    meaning = _meaning(path, data)
    match kind:
        case "extra_forbidden":
            return _unknown_key(path, data)
        case "missing":
            return f"missing{meaning}"
        case "union_tag_not_found":
            return f"kind is missing; {_one_of(_kinds(path, data))}"
        case "union_tag_invalid":
            kinds = _kinds(path, data)
            return f"{_one_of(kinds, 'one of the kinds')}, got {context['tag']}{nearest(context['tag'], kinds)}"
        case "literal_error":
            field = field_at(path, data)
            legal = literals_in(field.annotation) if field else ()
            return f"{_one_of(legal)}, got {got}{nearest(details['input'], legal)}"
        case "value_error":
            return str(context["error"])
    if kind in BOUNDS:
        name, sign = BOUNDS[kind]
        return f"expected a value {sign} {plain(context[name])}, got {got}{meaning}"
    if kind in TYPES:
        return f"expected {TYPES[kind]}, got {got}{meaning}"
    if kind == "string_pattern_mismatch" and context["pattern"] == ONE_LINE:
        return f"expected one line of text without control characters, got {got}{meaning}"
    if kind in ("string_pattern_mismatch", "string_too_short"):
        return f"got {got}{meaning}"
    if kind == "string_too_long":
        return f"expected at most {context['max_length']} characters, got {len(details['input'])}: {got}{meaning}"
    if kind in ("too_short", "too_long"):
        bound = f"at least {context['min_length']}" if kind == "too_short" else f"at most {context['max_length']}"
        return f"expected {bound} entries, got {got}{meaning}"
    return f"{details['msg'][0].lower()}{details['msg'][1:]}, got {got}{meaning}"


def _unknown_key(path: list[str | int], data: Any) -> str:
    *above, key = path
    name = str(key)
    here = candidates(above, data)
    if not here:
        return "unknown key"
    chosen, *others = here
    legal = [field for field in chosen.model_fields if field != "kind" and (above or _may_stand(field, data))]
    siblings = [kind for other in others if name in other.model_fields for kind in kinds_of(other)]
    if siblings:
        return f"unknown key for kind {entry_at(above, data)['kind']}; it belongs to kind {', '.join(siblings)}"
    if foreign := _foreign(name, above, data):
        return f"unknown key; {foreign}"
    if near := difflib.get_close_matches(name, legal, n=1, cutoff=0.7):
        return f"unknown key; did you mean {near[0]}?"
    blocks = {block for block, field in all_keys(data) if field == name and _may_stand(block, data)}
    if blocks:
        places = sorted(f"{block}.{name}".lstrip(".") for block in blocks)
        return f"unknown key here; did you mean {', '.join(places[:3])}?"
    return f"unknown key; legal here: {', '.join(legal) or 'kind only'}"


def _foreign(name: str, above: list[str | int], data: Any) -> str:
    """Return the keys that say what a name of another library says; empty if there are none for this place."""
    if name not in FOREIGN_NAMES:
        return ""
    foreign = FOREIGN_NAMES[name]
    block = ".".join(map(str, above))
    known = [
        key for key in foreign.keys if _may_stand(key, data) and (len(above) < 2 or key.rpartition(".")[0] == block)
    ]
    return foreign.sentence(name, known) if known else ""


def _may_stand(block: str, data: Any) -> bool:
    """Return whether a block belongs to the algorithm of a file; if that is not clear, every block may."""
    algorithm, top = data.get("algorithm") if isinstance(data, dict) else None, block.partition(".")[0]
    return top not in OWNED or find(algorithm) is None or algorithm in owners_of(top, algorithm)


def _kinds(path: list[str | int], data: Any) -> list[str]:
    return [kind for block in candidates(path, data) for kind in kinds_of(block)]


def _meaning(path: list[str | int], data: Any) -> str:
    field = field_at(path, data)
    if field is None or not field.description:
        return ""
    text = field.description.rstrip(".")
    return f"; {text if text[:2].isupper() else text[0].lower() + text[1:]}"


def _one_of(legal: Iterable[Any], what: str = "") -> str:
    return f"expected {what or 'one of'} {', '.join(map(str, legal))}"


def nearest(got: Any, legal: Iterable[Any]) -> str:
    """Return the nearest legal text as the end of a sentence; nothing if none is near."""
    found = difflib.get_close_matches(got, [str(value) for value in legal], n=1) if isinstance(got, str) else []
    return f"; did you mean {found[0]}?" if found else ""
