"""Read a file of the seed system: refuse other files, check the form of values, rename the keys of older releases."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tesserl_configs.document import Document
from tesserl_configs.errors import ConfigError, shown
from tesserl_configs.files import read_document
from tesserl_configs.importer.catalogue import (
    ANY,
    BLOCKS,
    FLAG,
    FREEZES,
    KEYS,
    KNOTS,
    NUMBER,
    OLDER,
    RENAMED,
    SIZES,
    TEXT,
    WHOLE,
    Form,
)
from tesserl_configs.importer.source import Source, blocks_of, leaves_of
from tesserl_configs.introspection import blocks_in
from tesserl_configs.schema import RunConfig
from tesserl_configs.sweep_file import SweepConfig

TRUE, FALSE = {"true", "t", "yes", "y", "on", "1"}, {"false", "f", "no", "n", "off", "0"}
"""Words that the seed system reads as true or false."""


def read_source(path: Path) -> Source:
    """Read a file of the seed system; refuse files of Tesserl and values of another form."""
    document = read_document(path)
    if document.errors:
        raise ConfigError(*(f"{path}:{error.line}: {error}" for error in document.errors))
    _refuse_ours(path, document)
    data = _as_the_seed_system_reads_it(path)
    leaves, problems = {}, []
    for key, value in leaves_of(data):
        try:
            leaves[key] = _converted(key, value)
        except ValueError as error:
            problems.append(f"{_place(path, document, key)}: not a value as the seed system has it there ({error})")
    problems += [f"{_place(path, document, key)}: {text}" for key, text in _conflicts(leaves, set(blocks_of(data)))]
    if problems:
        raise ConfigError(*problems)
    return _renamed(leaves, set(blocks_of(data)))


def suggestion(key: str) -> str:
    """Return the nearest key of the seed system as a question; empty if none is near."""
    near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.85)
    same = [known for known in KEYS if known.rpartition(".")[2] == key.rpartition(".")[2]]
    return f"; did you mean {(near or same)[0]}?" if near or same else ""


def _place(path: Path, document: Document, key: str) -> str:
    line = document.lines.get(key)
    return f"{path}:{line}: {key}" if line else f"{path}: {key}"


def _refuse_ours(path: Path, document: Document) -> None:
    """Refuse a file with keys of Tesserl, or without any block of the seed system."""
    for key in _keys_of_ours(document.data):
        raise ConfigError(
            f"{_place(path, document, key)}: a key of Tesserl, which the seed system does not have; a file of Tesserl "
            "needs no import: use it as it is. If the file is the seed system's, remove the key"
        )
    if not any(block in document.data for block in BLOCKS):
        raise ConfigError(
            f"{path}: expected a block of the seed system ({', '.join(BLOCKS)}), got {', '.join(document.data)}; "
            "name a file of the seed system"
        )


def _keys_of_ours(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield keys of the first two levels that exist in Tesserl but in no release of the seed system."""
    for key, value in data.items():
        if key not in BLOCKS:
            if key in RunConfig.model_fields or key in SweepConfig.model_fields:
                yield key
        elif key in RunConfig.model_fields:
            if isinstance(value, str):  # btr: all
                yield key
            known = {path.split(".")[1] for path in KEYS if path.startswith(f"{key}.")}
            fields = _fields(key)
            yield from (
                f"{key}.{inner}" for inner in (value if isinstance(value, dict) else ()) if inner in fields - known
            )


def _fields(block: str) -> set[str]:
    """Return the keys of one of our top-level blocks, of all kinds."""
    return {name for member in blocks_in(RunConfig.model_fields[block].annotation) for name in member.model_fields}


def _as_the_seed_system_reads_it(path: Path) -> dict[Any, Any]:
    """Return the data of the file by the rules of YAML 1.1: ``no`` is false, ``010`` is eight."""
    try:
        data: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: not valid for the seed system: {' '.join(str(error).split())}") from error
    return data


def _converted(key: str, value: Any) -> Any:
    """Return a value in the form of its key, as the seed system converts it."""
    if value is None:
        return value
    form = KEYS.get(key)
    if form is None:
        block = next((known for known in KEYS if key.startswith(f"{known}.")), None)
        if block is not None and KEYS[block] != ANY:
            raise ValueError(f"{block}: expected {_said(KEYS[block])}, got keys and values")
        if any(known.startswith(f"{key}.") for known in KEYS):
            raise ValueError(f"expected keys and values, got {shown(value)}")
        return value
    try:
        return _in_form(form, value)
    except (TypeError, ValueError):
        raise ValueError(f"expected {_said(form)}, got {shown(value)}") from None


def _said(form: Form) -> str:
    return form if isinstance(form, str) else f"one of {', '.join(form)}"


def _in_form(form: Form, value: Any) -> Any:
    return form[form.index(value)] if isinstance(form, tuple) else CONVERTERS[form](value)


def _flag(value: Any) -> bool:
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    word = value.lower() if isinstance(value, str) else ""
    if word not in TRUE | FALSE:
        raise ValueError
    return word in TRUE


def _whole(value: Any) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise ValueError
    return int(value)


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value + 0


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _knots(value: Any) -> list[list[Any]]:
    return [
        [_number(step), [_whole(each) for each in entry] if isinstance(entry, list) else _number(entry)]
        for step, entry in _listed(value)
    ]


CONVERTERS: dict[str, Callable[[Any], Any]] = {
    FLAG: _flag,
    WHOLE: _whole,
    NUMBER: _number,
    TEXT: _text,
    SIZES: lambda value: [_whole(each) for each in _listed(value)],
    KNOTS: _knots,
    ANY: lambda value: value,
}
"""Form -> function that converts a value to it, as the seed system does."""


def _conflicts(leaves: Mapping[str, Any], blocks: set[str]) -> Iterator[tuple[str, str]]:
    """Yield (key, message) for blocks that the seed system does not allow together."""
    if OLDER in blocks and "nn" in blocks:
        yield OLDER, "only older releases of the seed system read it, and only newer ones nn; remove one of the two"
    algorithm = leaves.get("training.algorithm")
    if OLDER in blocks and algorithm not in (None, "iqn"):
        yield OLDER, f"releases of the seed system that read it have iqn alone, got training.algorithm {algorithm}"
    transformers = ("transformer", "transformer_encoder")
    streams = ("nn.decoder.advantage", "nn.decoder.value")
    pairs = [(f"{stream}.mlp", f"{stream}.{other}") for stream in streams for other in transformers]
    if not leaves.get("nn.vis.no_image"):
        pairs.append(("nn.vis.cnn", "nn.vis.transformer"))
    for one, other in pairs:
        if one in blocks and other in blocks:
            yield other, f"the seed system refuses it beside {one}; remove one of the two"
    for key in (f"{stream}.{block}.use_hf_backbone" for stream in streams for block in transformers):
        if leaves.get(key):
            yield key, "the seed system refuses it here; set it to false"
    for key in ("fusion_mode", "init_from_pretrained"):
        outer, inner = leaves.get(f"nn.{key}"), leaves.get(f"nn.encoder.{key}")
        if None not in (outer, inner) and outer != inner:
            yield f"nn.encoder.{key}", f"the seed system refuses {inner} here beside nn.{key}: {outer}; remove one"


def _renamed(leaves: dict[str, Any], blocks: set[str]) -> Source:
    """Return the source, with keys of an older release under their newer names."""
    if OLDER not in blocks:
        return Source(leaves, blocks)
    names = {f"{OLDER}.{key}": path for key, path in RENAMED.items()}
    names |= {f"training.{key}": f"nn.{path}" for key, path in FREEZES.items()}
    found = {names[key]: key for key in leaves if key in names}
    renamed = {names.get(key, key): value for key, value in leaves.items()}
    image = "nn.vis.no_image"
    if renamed.get(image) is not None:
        renamed[image] = not renamed[image]
    return Source(renamed, blocks, found, is_older=True)
