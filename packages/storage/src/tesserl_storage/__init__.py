"""Reliable files for training runs: written atomically, verified by digests, never unpickled.

Public names are imported on first use, so that writing a file atomically does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tesserl_storage.__about__ import __version__

if TYPE_CHECKING:
    from tesserl_storage.appending import AppendedFile, remove_unfinished_line, whole_lines
    from tesserl_storage.digests import difference, digest
    from tesserl_storage.errors import StorageError
    from tesserl_storage.fields import Fields
    from tesserl_storage.generators import generators_state, seed_generators, set_generators_state
    from tesserl_storage.locks import InUseError, locked
    from tesserl_storage.sealed_json import read_sealed, write_sealed
    from tesserl_storage.state import join_state, split_state
    from tesserl_storage.tensors import load_tensors, save_tensors, write_tensors
    from tesserl_storage.whole_files import replacing, whole_directory, write_atomically, write_json, write_text

_HOMES = {
    "AppendedFile": "appending",
    "Fields": "fields",
    "InUseError": "locks",
    "StorageError": "errors",
    "difference": "digests",
    "digest": "digests",
    "generators_state": "generators",
    "join_state": "state",
    "load_tensors": "tensors",
    "locked": "locks",
    "read_sealed": "sealed_json",
    "remove_unfinished_line": "appending",
    "replacing": "whole_files",
    "save_tensors": "tensors",
    "seed_generators": "generators",
    "set_generators_state": "generators",
    "split_state": "state",
    "whole_directory": "whole_files",
    "whole_lines": "appending",
    "write_atomically": "whole_files",
    "write_json": "whole_files",
    "write_sealed": "sealed_json",
    "write_tensors": "tensors",
    "write_text": "whole_files",
}

__all__ = [
    "AppendedFile",
    "Fields",
    "InUseError",
    "StorageError",
    "__version__",
    "difference",
    "digest",
    "generators_state",
    "join_state",
    "load_tensors",
    "locked",
    "read_sealed",
    "remove_unfinished_line",
    "replacing",
    "save_tensors",
    "seed_generators",
    "set_generators_state",
    "split_state",
    "whole_directory",
    "whole_lines",
    "write_atomically",
    "write_json",
    "write_sealed",
    "write_tensors",
    "write_text",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
