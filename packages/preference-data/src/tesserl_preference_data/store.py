"""Stores of pairs on disk: safetensors for steps, JSON lines for pairs and labels; never unpickled.

A store is a directory:

- ``manifest.json``: ``format`` (``"tesserl-preference-pairs"``), ``format_version`` (1) and ``files``, an ordered list
  with ``name``, ``kind``, ``size`` in bytes, ``sha256`` and ``count`` (of segments or pairs) of each file.
- ``segments-00000.safetensors`` (kind ``segments``): ``start``, ``length`` and ``group``, int64 ``[S]``; and all
  entries of steps, ``[N, ...]``, as ``steps/observation``, ``steps/action``, ..., with ``/`` between nested keys.
- ``pairs-00000.jsonl`` (kind ``pairs``), one pair per line: ``chosen`` and ``rejected`` (numbers of segments over all
  files), ``label`` (1, 0.5 for a tie, null for a pair without a judgement), ``margin`` (a number or null), ``source``.
- ``labels.jsonl``, if people judge, one judgement per line; the last one of a pair counts: ``pair`` (number over all
  files), ``choice`` (``"first"`` for the segment that the pair's line calls chosen, ``"second"``, ``"tie"`` or
  ``"skip"``), ``source``, ``time`` (seconds since the epoch).

Files in the manifest never change. They are written under a temporary name, synced and renamed. The manifest is written
last and replaced atomically, so a reader sees either the old or the new store. Only ``labels.jsonl`` grows; each line
is synced. An unfinished last line of an interrupted append is ignored, and the next append removes it. ``.lock`` and
``.labels.lock`` let only one process at a time add pairs or labels.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tensordict import NestedKey, TensorDict
from torch import Tensor

from tesserl_preference_data.files import (
    MANIFEST,
    StoreError,
    describe,
    json_lines,
    map_tensors,
    read_manifest,
    verify_file,
    write_manifest,
)
from tesserl_preference_data.labels import PREFERRED, read_labels
from tesserl_preference_data.pairs import PreferencePairs
from tesserl_preference_data.pool import SegmentBlock, SegmentPool
from tesserl_storage.locks import locked
from tesserl_storage.tensors import write_tensors
from tesserl_storage.whole_files import remove_partial, replacing, whole_directory

_FILE_BYTES = 64 * 2**20  # bytes of steps per file: the memory that writing needs
_STEPS = "steps/"
_COLUMNS = ("chosen", "rejected", "label", "margin", "source")


def save_pairs(pairs: PreferencePairs, path: str | Path) -> Path:
    """Write pairs and the segments that they use.

    Args:
        pairs: pairs to write.
        path: directory of the store; it must not exist.

    Returns:
        The directory.

    Raises:
        OSError: the pairs cannot be written, for example on a full disk; ``path`` does not exist then.
        StoreError: ``path`` exists.
    """
    path = Path(path)
    if path.exists():
        raise _taken(path)
    try:
        with whole_directory(path) as directory:
            _write(pairs, directory, [])
    except OSError as error:
        if path.exists():  # another process has created it meanwhile
            raise _taken(path) from error
        raise
    return path


def _taken(path: Path) -> StoreError:
    return StoreError(f"{path} must not exist, a store is not overwritten; use append_pairs, or another directory")


def append_pairs(pairs: PreferencePairs, path: str | Path) -> None:
    """Add pairs and the segments that they use to a store.

    Args:
        pairs: pairs to add; their segments need the same keys, dtypes and shapes as those in the store.
        path: directory of the store.

    Raises:
        InUseError: another process still adds pairs to the store after ten seconds.
        OSError: the pairs cannot be written, for example on a full disk; the store is unchanged.
        StoreError: there is no store, or its segments have other keys, dtypes or shapes.
    """
    path = Path(path)
    read_manifest(path)  # raises first, so that no lock file is created without a store
    with locked(path, doing="adds pairs to this store", remedy="repeat the command when it has finished"):
        remove_partial(path)
        files = read_manifest(path)
        there = next((_read_block(path / each["name"]) for each in files if each["kind"] == "segments"), None)
        try:
            SegmentPool([*pairs.pool.blocks, *([] if there is None else [there])])
        except ValueError as error:
            raise StoreError(f"{path} holds other segments: {error}") from error
        _write(pairs, path, files)


def load_pairs(path: str | Path, *, unlabelled: bool = False, verify: bool = True) -> PreferencePairs:
    """Open a store; steps stay in memory-mapped files and are read when a batch needs them.

    Args:
        path: directory of the store.
        unlabelled: whether to include pairs without a judgement and skipped pairs; the numbers of pairs are then those
            of ``labels.jsonl``.
        verify: whether to compare digests, which reads every file once. Sizes are always compared.

    Returns:
        The pairs; labels in ``labels.jsonl`` replace the stored ones.

    Raises:
        StoreError: a file is missing or damaged, or a line cannot be read.
    """
    path = Path(path)
    files = read_manifest(path)
    for entry in files:
        verify_file(path / entry["name"], entry["size"], entry["sha256"] if verify else None)
    blocks = [_read_block(path / entry["name"]) for entry in files if entry["kind"] == "segments"]
    if not blocks:
        raise StoreError(f"{path} must hold segments, got none; save pairs into it")
    pool, columns = SegmentPool(blocks), _Columns()
    for entry in files:
        if entry["kind"] == "pairs":
            columns.read(path / entry["name"], num_segments=len(pool))
    pairs = columns.pairs(pool)
    labels = read_labels(path)
    if labels:
        preferred, source = 1 - pairs.label, pairs.source
        for pair, (choice, who) in labels.items():
            preferred[pair], source[pair] = PREFERRED[choice], who
        pairs = pairs.relabel(preferred, source=source)
    return pairs if unlabelled else pairs.labelled()


@dataclass
class _Columns:
    """Compact columns of pairs during reading, 30 bytes per pair."""

    chosen: array[int] = field(default_factory=lambda: array("q"))
    rejected: array[int] = field(default_factory=lambda: array("q"))
    label: array[float] = field(default_factory=lambda: array("f"))
    margin: array[float] = field(default_factory=lambda: array("f"))
    source: list[str] = field(default_factory=list)

    def read(self, path: Path, *, num_segments: int) -> None:
        """Read a file of pairs."""
        names: dict[str, str] = {}  # one string per judge, not per pair
        for where, line in json_lines(path):
            try:
                chosen, rejected, label, margin, source = (line[name] for name in _COLUMNS)
                right = 0 <= chosen < num_segments and 0 <= rejected < num_segments and label in (1, 0.5, None)
                right = right and isinstance(source, str)
                self.chosen.append(chosen)
                self.rejected.append(rejected)
                self.label.append(math.nan if label is None else label)
                self.margin.append(math.nan if margin is None else margin)
                self.source.append(names.setdefault(source, source))
            except (KeyError, TypeError):
                right = False
            if not right:
                raise StoreError(
                    f"{where}: a pair must have chosen and rejected in [0, {num_segments}), a label of 1, 0.5 or null, "
                    f"a margin or null, and a source, got {line}"
                )

    def pairs(self, pool: SegmentPool) -> PreferencePairs:
        """Return the pairs."""
        return PreferencePairs(
            pool,
            torch.tensor(self.chosen, dtype=torch.int64),
            torch.tensor(self.rejected, dtype=torch.int64),
            label=torch.tensor(self.label),
            margin=torch.tensor(self.margin),
            source=self.source,
        )


def _write(pairs: PreferencePairs, directory: Path, files: list[dict[str, Any]]) -> None:
    """Write the files of pairs and their segments, then the manifest; if this fails, remove the files."""
    files = list(files)
    try:
        _write_files(pairs, directory, files)
        write_manifest(directory, files)
    except BaseException:
        listed = read_manifest(directory) if (directory / MANIFEST).exists() else []
        for entry in files:
            if entry not in listed:
                (directory / entry["name"]).unlink(missing_ok=True)
        raise


def _write_files(pairs: PreferencePairs, directory: Path, files: list[dict[str, Any]]) -> None:
    """Write the files of pairs and of their segments, and add their entries to ``files``."""
    used = torch.unique(torch.cat([pairs.chosen_segment, pairs.rejected_segment]))
    num_before = sum(entry["count"] for entry in files if entry["kind"] == "segments")
    block_of = pairs.pool.block_of(used)
    for number, block in enumerate(pairs.pool.blocks):
        for part in _parts(block, used[block_of == number] - pairs.pool.first[number]):
            name = f"segments-{len(files):05d}.safetensors"
            with replacing(directory / name) as partial:
                write_tensors(partial, _tensors(block, part))
            files.append(describe(directory / name, "segments", len(part)))
    chosen, rejected = (
        (torch.searchsorted(used, each) + num_before).tolist()
        for each in (pairs.chosen_segment, pairs.rejected_segment)
    )
    name = f"pairs-{len(files):05d}.jsonl"
    with replacing(directory / name) as partial, partial.open("w", encoding="utf-8") as handle:
        columns = (chosen, rejected, pairs.label.tolist(), pairs.margin.tolist(), pairs.source)
        for values in zip(*columns, strict=True):
            line = dict(zip(_COLUMNS, map(_finite, values), strict=True))
            handle.write(json.dumps(line) + "\n")
    files.append(describe(directory / name, "pairs", len(pairs)))


def _parts(block: SegmentBlock, segments: Tensor) -> Iterator[Tensor]:
    """Split a block's segments into parts of about `_FILE_BYTES`, one per file."""
    step_bytes = sum(entry[0].numel() * entry.element_size() for entry in block.steps.values(True, True))
    file_of = block.length[segments].cumsum(0) * step_bytes // _FILE_BYTES
    _, counts = torch.unique_consecutive(file_of, return_counts=True)
    return iter(torch.split(segments, counts.tolist()) if len(segments) else ())


def _tensors(block: SegmentBlock, segments: Tensor) -> dict[str, Tensor]:
    """Return the tensors of a file."""
    own = SegmentBlock(block.steps, block.start[segments], block.length[segments], block.group[segments])
    index = own.layout()[2]
    steps = {
        _STEPS + "/".join(key if isinstance(key, tuple) else (key,)): entry[index].contiguous().cpu()
        for key, entry in block.steps.items(True, True)
    }
    start = own.length.cumsum(0) - own.length
    return {**steps, "start": start.cpu(), "length": own.length.cpu(), "group": own.group.cpu()}


def _read_block(path: Path) -> SegmentBlock:
    """Map a file of segments."""
    tensors = map_tensors(path)
    start, length, group = (tensors.pop(name, None) for name in ("start", "length", "group"))
    lengths = {len(each) for each in tensors.values()}
    if start is None or length is None or group is None or len(lengths) != 1:
        raise StoreError(
            f"{path} must have start, length, group and equally many steps of each key, got {sorted(tensors)}"
        )
    num_steps = lengths.pop()
    if not len(start) == len(length) == len(group) or ((start < 0) | (length < 1) | (start + length > num_steps)).any():
        raise StoreError(f"{path} must have segments within its {num_steps} steps, got others")
    entries: dict[NestedKey, Tensor] = {_nested(name.removeprefix(_STEPS)): tensor for name, tensor in tensors.items()}
    return SegmentBlock(TensorDict(entries, [num_steps]), start, length, group)


def _nested(name: str) -> NestedKey:
    parts = tuple(name.split("/"))
    return parts[0] if len(parts) == 1 else parts


def _finite(value: Any) -> Any:
    """Return None for a number that is not finite, which JSON cannot represent."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
