"""Fill the keys of ``btr`` switches: a pure function from the data of a file to the data that is validated."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from tesserl_configs.algorithms import owners_of
from tesserl_configs.base import Block
from tesserl_configs.btr import BTR, BTRConfig
from tesserl_configs.btr_switches import (
    MINATAR_CNN,
    OPTION_KEYS,
    Wanted,
    at,
    has_only_a_vector,
    is_minatar,
    overlay,
    recipe,
)
from tesserl_configs.errors import Problem

PLAIN_KINDS = {"replay": "uniform", "iqn.exploration": "epsilon", "nn.vision": "cnn"}
"""Kind of a block without ``kind`` whose switch is off."""

SWITCHES = tuple(name for name in BTRConfig.model_fields if name != "all")


class Resolution(NamedTuple):
    """The result of `resolve`."""

    data: dict[str, Any]
    """The data of the file with everything filled in."""

    origins: dict[str, str]
    """Dotted path of each filled key -> the switch that filled it, such as ``btr.noisy``."""

    problems: list[Problem]
    """Switches without effect, and options that the file contradicts."""


def resolve(data: Mapping[str, Any]) -> Resolution:
    """Fill the keys that the switches of ``btr:`` need and the file does not set.

    Args:
        data: the data of a whole file; it is not changed. Nothing is filled without ``btr``, or with another algorithm
            than iqn. An invalid ``btr`` counts as one without switches; validation reports the error.

    Returns:
        New data, which still hold ``btr``; resolving them again changes nothing.
    """
    block = _read(data)
    if block is None:
        return Resolution(dict(data), {}, [])
    filling = _Filling(copy.deepcopy(dict(data)))
    for name in SWITCHES:
        if name == "max_pool":  # its size depends on the encoder
            filling.plain_encoder()
        written = name in block.model_fields_set
        setting = getattr(block, name) if written else block.all and name != "layer_norm"
        if setting is not False:
            filling.switch(name, setting, named=written)
    if block.all:
        filling.fill("btr.all", recipe(filling.data))
    for path, kind in PLAIN_KINDS.items():
        if isinstance(at(filling.data, path), dict):
            filling.fill("btr", {f"{path}.kind": kind})
    return Resolution(filling.data, filling.origins, filling.problems)


def _read(data: Mapping[str, Any]) -> BTRConfig | None:
    if data.get("btr") is None or data.get("algorithm") not in owners_of("btr"):
        return None
    try:
        block = TypeAdapter(BTR).validate_python(data["btr"])
    except ValidationError:
        return BTRConfig()
    return BTRConfig(all=True) if isinstance(block, str) else block


class _Filling:
    """The data of a file while the switches fill it."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.origins: dict[str, str] = {}
        self.problems: list[Problem] = []

    def switch(self, name: str, setting: Any, *, named: bool) -> None:
        """Apply one switch; report a conflict with the file only if the file names the switch."""
        wanted = overlay(name, setting, self.data)
        if not wanted:
            if named:
                self.problems.append(Problem(f"btr.{name}", _cannot(name, self.data)))
            return
        if name == "impala" and not named and has_only_a_vector(self.data):
            return
        origin = f"btr.{name}" if named else "btr.all"
        overruled = self.fill(origin, wanted)
        if not named:
            return
        first = next(iter(wanted))
        if first in overruled or len(overruled) == len(wanted):
            self.problems.append(Problem(origin, _overruled(first, self.data, "the switch has no effect")))
            return
        for option in setting.model_fields_set if isinstance(setting, Block) else ():
            path = next(path for path in wanted if path.endswith(f".{OPTION_KEYS.get(option, option)}"))
            if path in overruled:
                self.problems.append(
                    Problem(f"{origin}.{option}", _overruled(path, self.data, "the option has no effect"))
                )

    def fill(self, origin: str, wanted: Wanted) -> list[str]:
        """Fill the keys that the file does not set, except in blocks of another kind than the wanted one.

        Args:
            origin: switch that asks for the keys.
            wanted: dotted paths and values, ``kind`` before the other keys of its block.

        Returns:
            The paths that end up with another value.
        """
        overruled: list[str] = []
        for path, value in wanted.items():
            above, _, key = path.rpartition(".")
            block = self._block(above)
            if block is None or f"{above}.kind" in overruled:
                overruled.append(path)
            elif key not in block:
                block[key] = value
                self.origins[path] = origin
            elif block[key] != value:
                overruled.append(path)
        return overruled

    def plain_encoder(self) -> None:
        """Choose convolutions if the file names no encoder, or one without ``kind``."""
        if has_only_a_vector(self.data) or at(self.data, "nn.vision.kind") is not None:
            return
        wanted: Wanted = {"nn.vision.kind": "cnn"}
        if is_minatar(self.data):
            wanted |= {f"nn.vision.{key}": value for key, value in copy.deepcopy(MINATAR_CNN).items()}
        self.fill("btr", wanted)

    def _block(self, path: str) -> dict[str, Any] | None:
        """Return the block at a path, created if missing; None if the path holds another value."""
        block: Any = self.data
        for key in path.split("."):
            block = block.setdefault(key, {})
            if not isinstance(block, dict):
                return None
        return block


def _cannot(name: str, data: Any) -> str:
    kind = at(data, "nn.vision.kind")
    return f"needs convolutions, nn.vision has kind {kind or 'none'}; choose cnn or impala there, or remove {name}"


def _overruled(path: str, data: Any, result: str) -> str:
    while at(data, path) is None and "." in path:
        path = path.rpartition(".")[0]
    value = at(data, path)
    if isinstance(value, dict):
        path, value = f"{path}.kind", value.get("kind")
    shown = json.dumps(value, default=str)
    return f"the file sets {path} to {shown}, so {result}; remove one of the two"
