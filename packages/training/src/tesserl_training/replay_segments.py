"""Store replay on disk in segments, which never change once they are full.

Transitions are numbered in the order in which they entered the buffer. Segment k starts at transition ``k * size``. A
checkpoint refers to the segments it needs and writes only those that are new since the last checkpoint: full segments
once, and the partly filled one under a separate name. Names give the range: ``replay/000004096-000008192.safetensors``.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from tesserl_analysis import run_files
from tesserl_storage.digests import digest
from tesserl_storage.errors import StorageError
from tesserl_storage.fields import Fields
from tesserl_storage.tensors import write_tensors
from tesserl_storage.whole_files import write_atomically
from tesserl_training.checkpoints.checkpoint import read_manifest, replay_entries, verify

Entry = dict[str, Any]
NAME = re.compile(r"(\d{12,19})-(\d{12,19})\.safetensors")


class Segments:
    """The replay segments of one run.

    Args:
        run_dir: directory of the run.
        rank: rank of the replay; each rank writes its own directory.
        size: transitions per segment.
    """

    def __init__(self, run_dir: Path, rank: int = 0, *, size: int = 1 << 14) -> None:
        self.directory = run_dir / run_files.REPLAY / (f"rank_{rank}" if rank else "")
        self._size, self._rank = size, rank
        self._known: dict[str, Entry] = {}

    def write(self, read: Callable[[int, int], Mapping[str, Tensor]], first: int, last: int) -> list[Entry]:
        """Write the transitions from ``first`` to ``last`` (exclusive) that are not on disk yet.

        Args:
            read: returns the transitions of a range, as tensors by name.
            first: number of the oldest transition in the buffer.
            last: number of transitions added so far.

        Returns:
            One entry (file, start, stop, bytes, sha256) for every segment of the range, oldest first.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        entries = []
        for begin in range(first // self._size * self._size, last, self._size):
            closed = f"{begin:012d}-{begin + self._size:012d}.safetensors"
            start, stop = max(begin, first), min(begin + self._size, last)
            name = closed if closed in self._known else f"{start:012d}-{stop:012d}.safetensors"
            if name not in self._known:
                self._known[name] = self._write_one(name, read(start, stop))
            entries.append(self._known[name])
        return entries

    def _write_one(self, name: str, transitions: Mapping[str, Tensor]) -> Entry:
        path = self.directory / name
        tensors = {key: value.cpu().contiguous() for key, value in transitions.items()}
        write_atomically(path, lambda partial: write_tensors(partial, tensors))
        start, stop = _range(name)
        return {"file": name, "start": start, "stop": stop, **digest(path)}

    def read(self, entries: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, int, dict[str, Tensor]]]:
        """Verify all segments, then read them one after the other.

        Returns:
            For each segment: first transition number, last transition number (exclusive), and the tensors by name.

        Raises:
            StorageError: a segment is missing or damaged, or does not continue the segment before it.
        """
        verified: list[tuple[int, int, Path]] = []
        for entry in entries:
            name, start, stop = _checked(entry)
            if verified and verified[-1][1] != start:
                raise StorageError(f"{self.directory / name}: expected the segment that begins at {verified[-1][1]}")
            if not (self.directory / name).is_file():
                raise StorageError(
                    f"{self.directory / name}: missing; a run keeps the replay of its newest checkpoints only, "
                    "resume from one of those"
                )
            verify(self.directory, {name: entry})
            self._known[name] = dict(entry)
            verified.append((start, stop, self.directory / name))
        return ((start, stop, load_file(path)) for start, stop, path in verified)

    def prune(self, checkpoints: Iterable[Path]) -> None:
        """Remove the segments to which none of the checkpoints refers."""
        manifests = map(read_manifest, checkpoints)
        needed = {entry["file"] for each in manifests for entry in replay_entries(each, self._rank)}
        for path in (*self.directory.glob("*.safetensors"), *self.directory.glob(".*.partial")):
            if path.name not in needed:
                path.unlink()
        self._known = {name: entry for name, entry in self._known.items() if name in needed}


def _checked(entry: Mapping[str, Any]) -> tuple[str, int, int]:
    """Validate an entry; return its file and its range."""
    fields = Fields(entry, "manifest.json: replay")
    name, start, stop = fields.text("file"), fields.integer("start"), fields.integer("stop")
    fields.integer("bytes")
    fields.text("sha256")
    if NAME.fullmatch(name) is None or _range(name) != (start, stop) or start >= stop:
        raise StorageError(f"manifest.json: replay: expected a segment from {start} to {stop}, got {name!r:.80}")
    return name, start, stop


def _range(name: str) -> tuple[int, int]:
    start, stop = name.removesuffix(".safetensors").split("-")
    return int(start), int(stop)
