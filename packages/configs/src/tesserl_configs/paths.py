"""Paths in a configuration: relative to the current directory in a file, and absolute after loading."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tesserl_configs.schema import RunConfig


def make_absolute(data: dict[str, Any]) -> None:
    """Make the paths in the plain data of a file absolute, in place, so that a run can be resumed anywhere."""
    environment = data.get("environment")
    if isinstance(environment, dict) and isinstance(environment.get("module_path"), list):
        environment["module_path"] = [_absolute(each) for each in environment["module_path"]]
    _replace(data, "initial_weights")
    if isinstance(weights := data.get("initial_weights"), dict):
        _replace(weights, "from")
    pairs = data.get("pairs")
    source = pairs.get("source") if isinstance(pairs, dict) else None
    if isinstance(source, dict):
        _replace(source, "path")
    _replace_models(data.get("nn"))


def with_module_path(config: RunConfig, directories: Iterable[Path]) -> RunConfig:
    """Fill in ``module_path`` if modules are named without it: the directories of the files and the current one."""
    environment = config.environment
    if environment.module_path or not (environment.modules or config.nn.body):
        return config
    places = dict.fromkeys(str(place.absolute()) for place in (*directories, Path.cwd()))
    found = environment.model_copy(update={"module_path": tuple(places)})
    return config.model_copy(update={"environment": found})


def _replace(block: dict[str, Any], key: str) -> None:
    if key in block:
        block[key] = _absolute(block[key])


def _absolute(text: Any) -> Any:
    """Return a path in absolute form; return anything else unchanged."""
    if not (isinstance(text, str) and text and text.isprintable()):
        return text
    path = Path(text).expanduser() if text.startswith("~/") else Path(text)
    return str(path if path.is_absolute() else Path.cwd() / path)


def _replace_models(data: Any) -> None:
    """Make local directories of models absolute; names on the hub stay."""
    for value in data.values() if isinstance(data, dict) else ():
        _replace_models(value)
    if isinstance(data, dict) and isinstance(text := data.get("model"), str):
        try:
            is_path = text.startswith(("./", "../", "~/")) or Path(text).is_dir()
        except (OSError, ValueError):  # not a valid file name
            return
        if is_path:
            _replace(data, "model")
