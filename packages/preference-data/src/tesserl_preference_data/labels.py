"""Labels that people gave to the pairs of a store, one judgement per line."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Literal

from tesserl_preference_data.files import StoreError, json_lines, read_manifest
from tesserl_storage.appending import AppendedFile, remove_unfinished_line
from tesserl_storage.locks import locked

Choice = Literal["first", "second", "tie", "skip"]
PREFERRED: dict[str, float] = {"first": 0.0, "second": 1.0, "tie": 0.5, "skip": math.nan}
"""The label of each choice, for `PreferencePairs.relabel`."""

LABELS_LOCK = ".labels.lock"
"""A separate lock from that of the pairs, so that people can judge while pairs are added."""


def append_label(path: str | Path, pair: int, choice: Choice, *, source: str) -> None:
    """Append a person's label of a pair; it is on disk when this returns.

    Args:
        path: directory of the store.
        pair: number of the pair in the store, see ``load_pairs(path, unlabelled=True)``.
        choice: the better segment, ``"tie"``, or ``"skip"``.
        source: name of the judge.

    Raises:
        OSError: the label cannot be written, for example on a full disk; earlier labels are unchanged.
        StoreError: there is no such pair or choice.
    """
    path = Path(path)
    num_pairs = sum(entry["count"] for entry in read_manifest(path) if entry["kind"] == "pairs")
    if not 0 <= pair < num_pairs or choice not in PREFERRED:
        raise StoreError(
            f"a label must be one of {', '.join(PREFERRED)} for a pair below {num_pairs}, got {choice!r} for {pair}"
        )
    labels = path / "labels.jsonl"
    line = json.dumps({"pair": pair, "choice": choice, "source": source, "time": round(time.time(), 3)}) + "\n"
    with locked(path, doing="writes a label", remedy="repeat it", name=LABELS_LOCK):
        remove_unfinished_line(labels)
        with AppendedFile(labels) as file:
            file.write(line.encode(), sync=True)


def read_labels(path: str | Path) -> dict[int, tuple[Choice, str]]:
    """Read the labels that people gave to pairs.

    Args:
        path: directory of the store.

    Returns:
        The last choice and its judge, by the number of each judged pair.

    Raises:
        StoreError: a line cannot be read.
    """
    path = Path(path)
    num_pairs = sum(entry["count"] for entry in read_manifest(path) if entry["kind"] == "pairs")
    labels = path / "labels.jsonl"
    found: dict[int, tuple[Choice, str]] = {}
    if not labels.exists():
        return found
    for where, line in json_lines(labels, growing=True):
        pair, choice, source = line.get("pair"), line.get("choice"), line.get("source")
        if type(pair) is not int or not 0 <= pair < num_pairs or choice not in PREFERRED or not isinstance(source, str):
            raise StoreError(f"{where}: a label must have a pair below {num_pairs}, a choice and a source, got {line}")
        found[pair] = (choice, source)
    return found
