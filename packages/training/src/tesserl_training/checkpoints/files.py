"""Write and read the files of one checkpoint: tensors as safetensors, the rest as JSON, without pickle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tesserl_storage.sealed_json import read_json, read_object
from tesserl_storage.state import join_state, split_state, tensor_names
from tesserl_storage.tensors import load_tensors, save_tensors

TENSOR_FILES = ("networks", "optimizer", "state")
"""Top-level entries of a state with a separate tensor file; the tensors of all other entries are in ``state``."""

FILES = (*(f"{name}.safetensors" for name in TENSOR_FILES), "state.json", "environments.json")
"""Names of the files of a checkpoint besides its manifest."""


def write_state(directory: Path, state: Mapping[str, Any]) -> None:
    """Write a nested state as the files of a checkpoint."""
    document, tensors = split_state(state)
    environments = document.pop("environments", None)
    files: dict[str, dict[str, Tensor]] = {name: {} for name in TENSOR_FILES}
    for name, tensor in tensors.items():
        owner = name.split(".", 1)[0]
        files[owner if owner in TENSOR_FILES else "state"][name] = tensor
    for name, group in files.items():
        save_tensors(directory / f"{name}.safetensors", group)
    for name, data in (("state", document), ("environments", environments)):
        (directory / f"{name}.json").write_text(json.dumps(data, allow_nan=False), encoding="utf-8")


def read_state(directory: Path) -> dict[str, Any]:
    """Return the nested state that `write_state` wrote; inconsistent files raise errors of any type."""
    tensors: dict[str, Tensor] = {}
    for name in TENSOR_FILES:
        tensors |= load_tensors(directory / f"{name}.safetensors")
    document = {**read_object(directory / "state.json"), "environments": read_json(directory / "environments.json")}
    state: dict[str, Any] = join_state(document, tensors)
    if unknown := sorted(set(tensors) - set(tensor_names(document))):
        raise ValueError(f"state.json does not name {len(unknown)} of the tensors, such as {unknown[0]}")
    return state
