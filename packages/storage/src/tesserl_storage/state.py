"""Convert nested state dictionaries to tensors and JSON data, and back, without pickling."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor


def split_state(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """Separate the tensors of a nested state from its other values.

    Args:
        state: mappings (keys are strings or integers), lists, tuples, tensors and JSON scalars.

    Returns:
        JSON data, and the tensors by name. In the JSON data a tensor is ``{"$tensor": name}``, a mapping with integer
        keys is ``{"$items": [[key, value], ...]}``, and a number that is not finite is ``{"$float": "nan"}``, ``"inf"``
        or ``"-inf"``.

    Raises:
        TypeError: the state contains a value of another type.
    """
    tensors: dict[str, Tensor] = {}
    return _split(state, "", tensors), tensors


def _split(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[path] = value.detach()
        return {"$tensor": path}
    if isinstance(value, Mapping):
        split = {key: _split(item, f"{path}.{key}" if path else str(key), tensors) for key, item in value.items()}
        if any(isinstance(key, int) for key in split):
            return {"$items": [[key, item] for key, item in split.items()]}
        return split
    if isinstance(value, list | tuple):
        return [_split(item, f"{path}.{index}", tensors) for index, item in enumerate(value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"state {path or '(root)'}: expected tensors and JSON data, got {type(value).__name__}")


def join_state(document: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Invert ``split_state``; tuples become lists."""
    if isinstance(document, dict):
        if document.keys() == {"$tensor"}:
            return tensors[document["$tensor"]]
        if document.keys() == {"$items"}:
            return {key: join_state(item, tensors) for key, item in document["$items"]}
        if document.keys() == {"$float"}:
            return float(document["$float"])
        return {key: join_state(item, tensors) for key, item in document.items()}
    if isinstance(document, list):
        return [join_state(item, tensors) for item in document]
    return document


def tensor_names(document: Any) -> Iterator[str]:
    """Yield the names of the tensors to which JSON data of `split_state` refer."""
    if isinstance(document, dict):
        if document.keys() == {"$tensor"}:
            yield document["$tensor"]
            return
        document = list(document.values())
    if isinstance(document, list):
        for item in document:
            yield from tensor_names(item)
