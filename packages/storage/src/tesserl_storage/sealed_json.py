"""JSON files that contain the SHA-256 of their content, to detect manual or accidental changes."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tesserl_storage.errors import StorageError
from tesserl_storage.whole_files import json_text, write_json

SEAL = "sha256"
"""Key of the digest of all other keys."""


def write_sealed(path: Path, document: Mapping[str, Any]) -> None:
    """Write keys and values as JSON, atomically, with a digest that `open_seal` checks."""
    write_json(path, {**document, SEAL: content_digest(document)})


def content_digest(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON data, independent of the order of keys and of white space."""
    canonical = json.dumps(json.loads(json_text(document, indent=None)), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def read_sealed(path: Path) -> dict[str, Any]:
    """Return the keys and values of a file that `write_sealed` wrote.

    Raises:
        StorageError: the file cannot be read, or was changed.
    """
    return open_seal(path, read_object(path))


def open_seal(path: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """Check the digest of keys and values, and return them without it.

    Args:
        path: path of the file, for messages.
        document: content of the file.

    Raises:
        StorageError: the digest is missing or wrong.
    """
    content = {key: value for key, value in document.items() if key != SEAL}
    if document.get(SEAL) != content_digest(content):
        raise StorageError(f"{path}: its SHA-256 is not that of its content (altered or damaged); put it back")
    return content


def read_object(path: Path) -> dict[str, Any]:
    """Return the keys and values of a JSON file.

    Raises:
        StorageError: the file cannot be read, or is not a JSON object.
    """
    document = read_json(path)
    if not isinstance(document, dict):
        raise StorageError(f"{path}: expected keys and values, got {type(document).__name__}; put the file back")
    return document


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        StorageError: the file cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StorageError(f"{path}: cannot be read as JSON ({error}); the file is damaged") from error
