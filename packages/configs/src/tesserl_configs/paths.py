"""Paths in a configuration: relative ones begin at the current directory, and are absolute once a file is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def make_absolute(data: dict[str, Any], *directories: Path) -> None:
    """Make the paths in the plain data of a configuration absolute, in place, for a run to be resumed anywhere.

    Args:
        data: what a file and its overrides say; it may be wrong in any way.
        *directories: of the file and of those that it extends, where modules that they name are looked for.
    """
    _find_modules(data.get("environment"), directories)
    _replace(data, "initial_weights")
    pairs = data.get("pairs")
    source = pairs.get("source") if isinstance(pairs, dict) else None
    if isinstance(source, dict):
        _replace(source, "path")
    _replace_models(data.get("nn"))


def _replace(block: dict[str, Any], key: str) -> None:
    text = block.get(key)
    if isinstance(text, str) and text and text.isprintable():
        path = Path(text).expanduser() if text.startswith("~/") else Path(text)
        block[key] = str(path if path.is_absolute() else Path.cwd() / path)


def _replace_models(data: Any) -> None:
    """Replace local directories of models; the name of one on a hub stays as it is."""
    for value in data.values() if isinstance(data, dict) else ():
        _replace_models(value)
    if isinstance(data, dict) and isinstance(text := data.get("model"), str):
        try:
            is_path = text.startswith(("./", "../", "~/")) or Path(text).is_dir()
        except (OSError, ValueError):  # no name of a file
            return
        if is_path:
            _replace(data, "model")


def _find_modules(environment: Any, directories: tuple[Path, ...]) -> None:
    """Make the module path absolute; its default is the files' directories and this one, if a module is named."""
    if not isinstance(environment, dict):
        return
    given = environment.get("module_path")
    if not given and names_modules(environment):
        environment["module_path"] = list(dict.fromkeys(str(place.absolute()) for place in (*directories, Path.cwd())))
    elif isinstance(given, list):
        absolute = [{"path": each} for each in given]
        for each in absolute:
            _replace(each, "path")
        environment["module_path"] = [each["path"] for each in absolute]


def names_modules(environment: dict[str, Any]) -> bool:
    """Return whether the plain data of an ``environment:`` block name a module to import."""
    wrappers = environment.get("wrappers")
    kinds = [each.get("kind") for each in wrappers if isinstance(each, dict)] if isinstance(wrappers, list) else []
    named = isinstance(environment.get("id"), str) and ":" in environment["id"]
    return named or bool(environment.get("imports")) or any(kind == "own" or ":" in str(kind) for kind in kinds)
