"""Size and SHA-256 of files, as stored in manifests."""

import hashlib
from pathlib import Path
from typing import Any


def digest(path: Path) -> dict[str, Any]:
    """Return the size in ``bytes`` and the ``sha256`` of a file."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
        return {"bytes": file.tell(), "sha256": sha256.hexdigest()}


def difference(path: Path, size: int, sha256: str | None) -> str | None:
    """Return how a file differs from its manifest; None if it matches.

    Args:
        path: path of the file.
        size: expected size in bytes.
        sha256: expected SHA-256; None compares only the size, without reading the file.

    Returns:
        A part of a sentence for a message, without a remedy.
    """
    if not path.is_file():
        return "missing"
    if (found := path.stat().st_size) != size:
        return f"expected {size} bytes, got {found}"
    if sha256 is not None and digest(path)["sha256"] != sha256:
        return "SHA-256 differs from the manifest's (altered or damaged)"
    return None
