"""Convert pydantic's errors to sentences with expected, got and remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from tesserl_configs.algorithms import find, owners_of
from tesserl_configs.base import ONE_LINE, plain
from tesserl_configs.btr import ALL_TAG, OPTIONS_TAG, SWITCH_TAG
from tesserl_configs.document import join
from tesserl_configs.errors import ConfigError, Problem, shown
from tesserl_configs.foreign_names import FOREIGN_NAMES
from tesserl_configs.initial_weights import PATH_TAG
from tesserl_configs.introspection import blocks_with, candidates, entry_at, field_at, kinds_of, literals_in
from tesserl_configs.schedules import NUMBER_TAG, SCHEDULE_TAG
from tesserl_configs.schema import OWNED, config_class

CHOICES_TAG = "list of choices"

TAGS = (NUMBER_TAG, SCHEDULE_TAG, SWITCH_TAG, OPTIONS_TAG, ALL_TAG, PATH_TAG, CHOICES_TAG, "[key]")
"""Parts of pydantic's locations that are not keys of a file: tags of unions, and the mark of an invalid key."""

NAME_RULE = "a name is letters, digits and _ . + -, as it becomes a directory"

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


def problems_of(error: ValidationError, data: Any, root: type[BaseModel] | None = None) -> Iterator[Problem]:
    """Yield one problem for each of pydantic's errors about the data of a whole file."""
    sentences = _Sentences(data, root or config_class(data))
    for details in error.errors(include_url=False):
        cause = details.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError):  # from a rule between keys, with its own paths
            yield from (problem for problem in cause.problems if isinstance(problem, Problem))
        elif details["type"] != "too_short" or len(details["input"]) < details["ctx"]["min_length"]:
            # otherwise other entries are invalid, and pydantic counted only the valid ones
            path = sentences.path(details["loc"])
            yield Problem(".".join(map(str, path)), sentences.message(details, path))


class _Sentences:
    """Turn pydantic's errors about the data of a file into sentences."""

    def __init__(self, data: Any, root: type[BaseModel]) -> None:
        self.data, self.root = data, root

    def path(self, location: Iterable[str | int]) -> list[str | int]:
        """Return the keys of pydantic's location, without tags of unions."""
        path: list[str | int] = []
        data, fresh = self.data, True  # no tag of this block was removed yet
        for part in location:
            if part in TAGS:
                continue
            if fresh and isinstance(data, dict) and data.get("kind") == part and len(self._blocks(path)) != 1:
                fresh = False
                continue
            path.append(part)
            data, fresh = entry_at([part], data), True
        return path

    def message(self, details: Mapping[str, Any], path: list[str | int]) -> str:
        """Return the sentence about one error."""
        kind, context, got = details["type"], details.get("ctx", {}), shown(details["input"])
        meaning = self._meaning(path)
        match kind:
            case "extra_forbidden":
                return self._unknown_key(path)
            case "missing":
                return f"missing{meaning}"
            case "union_tag_not_found":
                return f"kind is missing; {_one_of(self._kinds(path))}"
            case "union_tag_invalid":
                kinds = self._kinds(path)
                return f"{_one_of(kinds, 'one of the kinds')}, got {context['tag']}{nearest(context['tag'], kinds)}"
            case "literal_error":
                field = field_at(path, self.data, self.root)
                legal = literals_in(field.annotation) if field else ()
                return f"{_one_of(legal)}, got {got}{nearest(details['input'], legal)}"
            case "value_error":
                return str(context["error"])
            case "string_too_long":
                size = len(details["input"])
                return f"expected at most {context['max_length']} characters, got {size}: {got}{meaning}"
            case "string_pattern_mismatch" | "string_too_short" if context.get("pattern") != ONE_LINE:
                return f"got {got}{meaning or f'; {NAME_RULE}'}"
        expected = _expected(kind, context)
        return f"{expected or details['msg'][0].lower() + details['msg'][1:]}, got {got}{meaning}"

    def _unknown_key(self, path: list[str | int]) -> str:
        *above, key = path
        name, data = str(key), self.data
        here = self._blocks(above)
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
        blocks = {block for block in blocks_with(name, self.root) if _may_stand(block, data)}
        if blocks:
            places = sorted(join(block, name) for block in blocks)
            return f"unknown key here; did you mean {', '.join(places[:3])}?"
        return f"unknown key; legal here: {', '.join(legal) or 'kind only'}"

    def _blocks(self, path: list[str | int]) -> tuple[type[BaseModel], ...]:
        return candidates(path, self.data, self.root)

    def _kinds(self, path: list[str | int]) -> list[str]:
        return [kind for block in self._blocks(path) for kind in kinds_of(block)]

    def _meaning(self, path: list[str | int]) -> str:
        field = field_at(path, self.data, self.root)
        if field is None or not field.description:
            return ""
        text = field.description.rstrip(".")
        return f"; {text if text[:2].isupper() else text[0].lower() + text[1:]}"


def _expected(kind: str, context: Mapping[str, Any]) -> str:
    """Return the expectation for a kind of pydantic's errors; empty if there is none."""
    if kind in BOUNDS:
        name, sign = BOUNDS[kind]
        return f"expected a value {sign} {plain(context[name])}"
    if kind == "too_short":
        return f"expected at least {context['min_length']} entries"
    if kind == "too_long":
        return f"expected at most {context['max_length']} entries"
    if kind == "string_pattern_mismatch":
        return "expected one line of text without control characters"
    return f"expected {TYPES[kind]}" if kind in TYPES else ""


def _foreign(name: str, above: list[str | int], data: Any) -> str:
    """Return the sentence about the keys equivalent to another library's name; empty if none may stand here."""
    if name not in FOREIGN_NAMES:
        return ""
    foreign, block = FOREIGN_NAMES[name], ".".join(map(str, above))
    known = [
        key
        for key in foreign.keys
        if _may_stand(key, data) and (not block or find(block) is not None or key.rpartition(".")[0] == block)
    ]
    return foreign.sentence(name, known) if known else ""


def _may_stand(block: str, data: Any) -> bool:
    """Return whether the algorithm of a file reads a block; true if the algorithm is unknown."""
    algorithm, top = data.get("algorithm") if isinstance(data, dict) else None, block.partition(".")[0]
    return top not in OWNED or find(algorithm) is None or algorithm in owners_of(top, algorithm)


def _one_of(legal: Iterable[Any], what: str = "") -> str:
    return f"expected {what or 'one of'} {', '.join(map(str, legal))}"


def nearest(got: Any, legal: Iterable[Any]) -> str:
    """Return a question with the nearest legal text, to end a sentence; empty if none is near."""
    found = difflib.get_close_matches(got, [str(value) for value in legal], n=1) if isinstance(got, str) else []
    return f"; did you mean {found[0]}?" if found else ""
