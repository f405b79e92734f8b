"""Stores of trajectories on disk: safetensors for steps, JSON lines for episodes; never unpickled.

A store is a directory:

- ``manifest.json``: ``format`` (``"tesserl-trajectories"``), ``format_version`` (1), ``environment`` (the task, as in a
  configuration, or null), ``sources`` (descriptions of what acted, one object per collection) and ``files``, an ordered
  list with ``name``, ``kind``, ``count`` (of steps or episodes), ``bytes`` and ``sha256`` of each file.
- ``steps-00000.safetensors`` (kind ``steps``), one row per step, ``[N, ...]``: the observation keys, ``action``,
  ``action_log_prob`` ``[N]`` (under the policy that acted; NaN if unknown), ``next/reward``, ``next/terminated``,
  ``next/truncated`` ``[N, 1]``, and, if pictures are stored, ``frame`` (see ``pictures.py``). The episodes of a file
  follow one another.
- ``episodes-00001.jsonl`` (kind ``episodes``), one line per episode of the preceding steps file: ``length``, ``return``
  (undiscounted; null if it is not finite), ``start`` (equal for episodes with the same start) and ``source`` (an index
  of ``sources``).

Files in the manifest never change. They are written under a temporary name, synced and renamed. The manifest is written
last and replaced atomically, so a reader sees either the old or the new store. ``.lock`` lets only one process at a
time add to it.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase

from tesserl_preference_data import StoreError
from tesserl_preference_data.files import map_tensors, read_document, verify_file
from tesserl_storage.whole_files import json_text

FORMAT, FORMAT_VERSION = "tesserl-trajectories", 1

KEYS = {"action", "action_log_prob", "frame"}
"""Entries at the root of a trajectory that are not observations."""


@dataclass(frozen=True)
class EpisodeLine:
    """Record of one episode."""

    length: int
    episode_return: float
    start: int  # equal for episodes with the same start
    source: int  # number in the manifest's sources

    def line(self) -> str:
        """Return the record as a line of JSON; a return that is not finite becomes null."""
        values = asdict(self)
        values["return"] = values.pop("episode_return")
        return json_text(values, indent=None) + "\n"


class Trajectories(Sequence[TensorDictBase]):
    """The episodes of a store, each a TensorDict ``[T]`` that views memory-mapped files.

    An episode has the observation keys, ``action``, ``action_log_prob`` and, under ``next``, ``reward``,
    ``terminated``, ``truncated`` and ``done``.

    Args:
        blocks: steps ``[N]`` of each file.
        episodes: episodes of each file, in the order of their steps.
        manifest: manifest of the store.
    """

    def __init__(
        self,
        blocks: Sequence[TensorDictBase],
        episodes: Sequence[Sequence[EpisodeLine]],
        manifest: Mapping[str, Any],
    ) -> None:
        self.episodes = [episode for part in episodes for episode in part]
        self.manifest = dict(manifest)
        self._blocks = list(blocks)
        self._places: list[tuple[int, int]] = []  # block, first step
        for number, part in enumerate(episodes):
            first = 0
            for episode in part:
                self._places.append((number, first))
                first += episode.length

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number, first = self._places[index]
        return self._blocks[number][first : first + self.episodes[index].length]

    @property
    def num_steps(self) -> int:
        """Total number of steps."""
        return sum(episode.length for episode in self.episodes)

    @property
    def starts(self) -> list[int]:
        """The start of each episode."""
        return [episode.start for episode in self.episodes]

    @property
    def keys(self) -> list[str]:
        """Observation keys, ``pixels`` first."""
        names = set(map(str, self._blocks[0].keys())) - KEYS - {"next"}
        return sorted(names, key=lambda key: (key != "pixels", key))

    @property
    def has_frames(self) -> bool:
        """True if steps have pictures (``frame``)."""
        return "frame" in self._blocks[0].keys()  # noqa: SIM118 (it looks among the rows)


def load_trajectories(path: str | Path, *, verify: bool = True) -> Trajectories:
    """Open a store; steps stay in memory-mapped files and are read on access.

    Args:
        path: directory of the store.
        verify: whether to compare digests, which reads every file once. Sizes are always compared.

    Returns:
        The episodes, in the order in which they were added.

    Raises:
        StoreError: there is no store, or a file is missing, damaged or of another format.
    """
    path = Path(path)
    manifest = read_manifest(path)
    for entry in manifest["files"]:
        sha256 = entry["sha256"] if verify else None
        verify_file(path / entry["name"], entry["bytes"], sha256, remedy="collect anew")
    episodes = list(read_episode_lines(path, manifest))
    blocks = [_block(path / entry["name"]) for entry in manifest["files"] if entry["kind"] == "steps"]
    for block, part, entry in zip(blocks, episodes, manifest["files"][::2], strict=True):
        if sum(episode.length for episode in part) != len(block):
            raise StoreError(
                f"{path / entry['name']} has {len(block)} steps, its episodes another number; collect anew"
            )
    if not blocks:
        raise StoreError(f"{path} holds no episodes; collect some with tesserl collect")
    return Trajectories(blocks, episodes, manifest)


def is_trajectories(path: str | Path) -> bool:
    """Return whether a directory is a store of trajectories, according to its manifest."""
    try:
        read_manifest(Path(path))
    except StoreError:
        return False
    return True


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a store.

    Raises:
        StoreError: there is no store, or it has another format.
    """
    remedy = "make some with tesserl collect"
    return read_document(path, FORMAT, FORMAT_VERSION, content="trajectories", remedy=remedy)


def read_episode_lines(path: Path, manifest: Mapping[str, Any]) -> Iterator[list[EpisodeLine]]:
    """Yield the episodes of each file."""
    for entry in manifest["files"]:
        if entry["kind"] == "episodes":
            lines = (path / entry["name"]).read_text(encoding="utf-8").splitlines()
            yield [_episode(f"{path / entry['name']}:{number}", line) for number, line in enumerate(lines, start=1)]


def _episode(where: str, line: str) -> EpisodeLine:
    try:
        values = json.loads(line)
        undiscounted = values.pop("return")
        values["episode_return"] = math.nan if undiscounted is None else undiscounted
        return EpisodeLine(**values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{where}: an episode must have length, return, start and source, got {line[:80]!r}"
        ) from error


def _block(file: Path) -> TensorDictBase:
    tensors = map_tensors(file)
    nested: dict[Any, torch.Tensor] = {tuple(name.split("/")): tensor for name, tensor in tensors.items()}
    steps: TensorDictBase = TensorDict(nested, [len(tensors["action"])])
    return steps.set(("next", "done"), steps["next", "terminated"] | steps["next", "truncated"])
