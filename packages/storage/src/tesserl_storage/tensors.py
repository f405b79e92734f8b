"""Safetensors files: tensors by name; a tensor with several names is stored once."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, with the file mode given by the umask.

    Args:
        path: path of the file.
        tensors: contiguous tensors on the CPU that share no memory.
        metadata: text for the header.

    Raises:
        OSError: the file cannot be written, for example on a full disk.
    """
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:  # its text contains the number of the system error
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        raise
    path.chmod(mode)  # safetensors creates files that only the owner can read


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name; a tensor with several names is returned under each."""
    tensors = load_file(path)
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    for name, owner in json.loads(header["__metadata__"]["aliases"]).items():
        tensors[name] = tensors[owner]
    return tensors


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors; a tensor with several names is stored once, with its other names in the header."""
    stored: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    owners: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors.items():
        identity = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)
        owner = owners.setdefault(identity, name) if tensor.numel() else name
        if owner != name:
            aliases[name] = owner
        else:
            stored[name] = tensor.cpu().clone(memory_format=torch.contiguous_format)
    write_tensors(path, stored, {"aliases": json.dumps(aliases)})
