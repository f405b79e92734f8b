"""Reading and writing configurations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tesserl_configs.btr_resolution import resolve
from tesserl_configs.document import ancestors, render
from tesserl_configs.errors import ConfigError, Problem
from tesserl_configs.files import Order, Place, read_extended
from tesserl_configs.messages import problems_of
from tesserl_configs.overrides import apply_override
from tesserl_configs.paths import make_absolute, with_module_path
from tesserl_configs.schema import RunConfig, config_class


@dataclass(frozen=True)
class Loaded:
    """A configuration, and where each of its keys was written."""

    config: RunConfig
    path: Path
    places: Mapping[str, Place]
    changed: tuple[str, ...]
    """Keys that overrides have set."""

    def placed(self, problem: Problem) -> str:
        """Return the text of a problem found after loading, with its place: ``file:line`` or ``--set key``."""
        return _placed(problem, self.path, self.places, self.changed)[1]


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
    """Read the configuration of a run.

    Args:
        path: a YAML file.
        overrides: ``a.b=value`` each, applied in order before validation; the value is read as YAML, list entries are
            named by their number.

    Returns:
        The validated configuration; ``name`` is filled in where the file has none.

    Raises:
        ConfigError: the file cannot be read, or it or an override is wrong; every problem has its place, ``file:line``
            or ``--set key``.
    """
    return load_with_places(path, overrides).config


def load_with_places(path: str | Path, overrides: Iterable[str] = ()) -> Loaded:
    """Read the configuration of a run as `load_config` does, and keep the places of its keys.

    Args:
        path: a YAML file.
        overrides: see `load_config`.

    Raises:
        ConfigError: see `load_config`.
    """
    path = Path(path)
    source = read_extended(path)
    data = source.data
    problems: list[tuple[Order, str]] = list(source.errors)
    changed: list[str] = []
    for override in overrides:
        try:
            changed.append(apply_override(data, override))
        except ConfigError as error:
            problems.append(((0, 0), str(error)))
    if data.get("name") is None:
        data["name"] = name_from(path)
    found: list[Problem] = []
    make_absolute(data)
    try:
        data, origins, _ = resolve(data)
        config = with_module_path(config_class(data).model_validate(data), (file.parent for file in source.files))
    except ValidationError as error:
        found = [_with_origin(problem, origins) for problem in problems_of(error, data)]
    except ConfigError as error:  # the declaration of an algorithm of another package
        found = [problem for problem in error.problems if isinstance(problem, Problem)]
    problems += [_placed(problem, path, source.places, changed) for problem in found]
    if problems:
        raise ConfigError(*(text for _, text in sorted(problems, key=lambda problem: problem[0])))
    return Loaded(config, path, source.places, tuple(changed))


def dump_config(config: RunConfig) -> str:
    """Write a configuration as YAML: every key, in the order of the schema; `load_config` reads back an equal one."""
    return render(as_data(config))


def as_data(config: RunConfig) -> dict[str, Any]:
    """Return the plain data of a configuration: mappings, lists, text, numbers; ``kind`` comes first."""
    return _kind_first(config.model_dump(mode="json"))


def name_from(path: str | Path) -> str:
    """Return the default name of a run: the path below ``configs/`` with ``-`` for ``/``, else the file's stem."""
    path = Path(path).resolve().with_suffix("")
    parts = path.parts
    below = parts[len(parts) - parts[::-1].index("configs") :] if "configs" in parts[:-1] else parts[-1:]
    return re.sub(r"[^\w.+-]+", "-", "-".join(below)).strip("-.+") or "run"


def _with_origin(problem: Problem, origins: dict[str, str]) -> Problem:
    """Name the ``btr`` switch in a problem with a key that it filled, or with a kind that it chose."""
    path = problem.path
    if path in origins:
        return Problem(origins[path], f"it sets {path}: {problem.message}")
    kind = f"{path.rpartition('.')[0]}.kind"
    if kind in origins and problem.message.startswith("unknown key for kind"):
        return Problem(path, f"{problem.message} ({origins[kind]} chose the kind)")
    return problem


def _placed(problem: Problem, path: Path, places: Mapping[str, Place], changed: Sequence[str]) -> tuple[Order, str]:
    """Return the order and the text of a problem, placed at the override or at the nearest key of the files."""
    for place in ancestors(problem.path):
        if place in changed:
            return (0, 0), f"--set {place}: {problem}"
    for place in ancestors(problem.path):
        if place in places:
            return places[place].order, f"{places[place]}: {problem}"
        for key in changed:
            if place and key.startswith(f"{place}."):  # the override created the block
                return (0, 0), f"--set {key}: {problem}"
    return (0, 0), f"{path}: {problem}"


def _kind_first(data: Any) -> Any:
    if isinstance(data, dict):
        first = {"kind": data["kind"]} if "kind" in data else {}
        return {key: _kind_first(value) for key, value in {**first, **data}.items()}
    return [_kind_first(value) for value in data] if isinstance(data, list) else data
