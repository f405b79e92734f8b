"""Identity of a run: drawn once, stored in ``run.json`` and repeated in every file of the run.

``run.json`` holds the run's id, the digest of the part of its configuration that a resume cannot change, and the
digests of the accepted contents of ``config.yaml``: one, or two while a resume replaces that file.
"""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tesserl_analysis import run_files
from tesserl_storage.errors import StorageError
from tesserl_storage.fields import Fields
from tesserl_storage.sealed_json import open_seal, read_object, write_sealed
from tesserl_storage.whole_files import write_text

FORMAT_VERSION = 2
"""Version of the files of a run. Version 1 is Tesserl 0.1, whose runs have no ``run.json``."""


class NoRunError(StorageError):
    """The named run or checkpoint does not exist; the exit code is that of wrong usage."""

    exit_code = 2


@dataclass(frozen=True)
class Identity:
    """Id of a run, and SHA-256 of the part of its configuration that a resume cannot change."""

    run_id: str
    config_sha256: str


def draw_run_id() -> str:
    """Return a new id from the operating system's randomness; do not use the generators of the run."""
    return secrets.token_hex(8)


def write_identity(run_dir: Path, identity: Identity, config: str) -> None:
    """Write ``run.json``, then ``config.yaml``; if the process dies in between, the old configuration stays valid.

    Args:
        run_dir: directory of the run.
        identity: identity of the run.
        config: content of ``config.yaml``.
    """
    path = run_dir / run_files.CONFIG
    texts = [path.read_bytes()] if path.exists() else []
    _write(run_dir, identity, list(dict.fromkeys(map(_digest, [*texts, config.encode()]))))
    write_text(path, config)


def read_identity(run_dir: Path) -> Identity | None:
    """Return the identity of a run; None if there is no ``run.json``.

    Raises:
        StorageError: the file is damaged, or of another version.
    """
    record = _read(run_dir)
    return None if record is None else record[0]


def require_identity(run_dir: Path) -> Identity:
    """Return the identity of a run; refuse a ``config.yaml`` that the run did not write.

    Raises:
        StorageError: the run has another version, or a file is missing or was changed.
        NoRunError: the directory holds no run.
    """
    path = run_dir / run_files.CONFIG
    if not path.is_file():
        if (run_dir / run_files.IDENTITY).exists() or (run_dir / run_files.CHECKPOINTS).exists():
            raise StorageError(f"{path}: missing; put it back, or name the directory of another run")
        raise NoRunError(f"{run_dir}: expected a run, got {described(run_dir, path.name)}; name the directory of a run")
    content = path.read_bytes()  # read before run.json, because run.json is written first
    record = _read(run_dir)
    if record is None:
        raise StorageError(_without_identity(run_dir))
    identity, files = record
    if _digest(content) not in files:
        raise StorageError(
            f"{path}: not as this run wrote it (cut short, edited, or of another run); put it back. "
            "A resume changes keys with --set, and a new run starts from an edited copy"
        )
    return identity


def described(path: Path, lacking: str) -> str:
    """Describe a path that should be a directory with a certain file, for errors."""
    if path.is_dir():
        return f"a directory without {lacking}"
    return "a file" if path.exists() else "no such directory"


def _write(run_dir: Path, identity: Identity, files: Sequence[str]) -> None:
    content = {"format_version": FORMAT_VERSION, "run_id": identity.run_id, "config_sha256": identity.config_sha256}
    write_sealed(run_dir / run_files.IDENTITY, {**content, "config_files": list(files)})


def _read(run_dir: Path) -> tuple[Identity, list[str]] | None:
    path = run_dir / run_files.IDENTITY
    if not path.exists():
        return None
    document = read_object(path)
    require_version(path, document.get("format_version"))
    fields = Fields(open_seal(path, document), str(path))
    return Identity(fields.text("run_id"), fields.text("config_sha256")), fields.texts("config_files")


def require_version(path: Path, version: object) -> None:
    """Refuse a file of another version."""
    if version != FORMAT_VERSION:
        writer = "Tesserl 0.1 wrote it and can read it" if version == 1 else "another version of Tesserl wrote it"
        raise StorageError(f"{path}: expected format_version {FORMAT_VERSION}, got {version!r:.40}; {writer}")


def _without_identity(run_dir: Path) -> str:
    """Return the reason why a run has no ``run.json``."""
    for manifest in sorted(run_dir.glob("checkpoints/step_*/manifest.json")):
        require_version(manifest, read_object(manifest).get("format_version"))
    path = run_dir / run_files.IDENTITY
    return f"{path}: missing; put it back, the checkpoints cannot be told from those of other runs without it"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
