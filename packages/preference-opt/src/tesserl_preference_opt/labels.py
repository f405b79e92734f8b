"""What people say of the pairs of a store, one judgement a line."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Literal

from tesserl_preference_opt.files import StoreError, json_lines, read_manifest

Choice = Literal["first", "second", "tie", "skip"]
PREFERRED: dict[str, float] = {"first": 0.0, "second": 1.0, "tie": 0.5, "skip": math.nan}
"""What a choice says of a pair, as `PreferencePairs.relabel` takes it."""


def append_label(path: str | Path, pair: int, choice: Choice, *, source: str) -> None:
    """Write down what a person said of a pair: on disk when this returns.

    Args:
        path: directory of the store.
        pair: number of the pair in it, see ``load_pairs(path, unlabelled=True)``.
        choice: the better segment, ``"tie"``, or ``"skip"``.
        source: who said so.

    Raises:
        StoreError: there is no such pair or choice, or the last write into ``labels.jsonl`` was cut off.
    """
    path = Path(path)
    num_pairs = sum(entry["count"] for entry in read_manifest(path) if entry["kind"] == "pairs")
    if not 0 <= pair < num_pairs or choice not in PREFERRED:
        raise StoreError(
            f"a label must be one of {', '.join(PREFERRED)} for a pair below {num_pairs}, got {choice!r} for {pair}"
        )
    labels = path / "labels.jsonl"
    line = json.dumps({"pair": pair, "choice": choice, "source": source, "time": round(time.time(), 3)}) + "\n"
    with labels.open("ab+") as handle:
        if handle.tell():
            handle.seek(-1, os.SEEK_END)
            if handle.read(1) != b"\n":
                raise StoreError(f"the last line of {labels} was cut off; delete that line, and judge its pair again")
        handle.write(line.encode())
        handle.flush()
        os.fsync(handle.fileno())


def read_labels(path: str | Path) -> dict[int, tuple[Choice, str]]:
    """Read what people said of pairs.

    Args:
        path: directory of the store.

    Returns:
        Of each pair that was judged the last choice, and whose it is.

    Raises:
        StoreError: a line cannot be read.
    """
    path = Path(path)
    num_pairs = sum(entry["count"] for entry in read_manifest(path) if entry["kind"] == "pairs")
    labels = path / "labels.jsonl"
    found: dict[int, tuple[Choice, str]] = {}
    if not labels.exists():
        return found
    for where, line in json_lines(labels):
        pair, choice, source = line.get("pair"), line.get("choice"), line.get("source")
        if type(pair) is not int or not 0 <= pair < num_pairs or choice not in PREFERRED or not isinstance(source, str):
            raise StoreError(f"{where}: a label must have a pair below {num_pairs}, a choice and a source, got {line}")
        found[pair] = (choice, source)
    return found
