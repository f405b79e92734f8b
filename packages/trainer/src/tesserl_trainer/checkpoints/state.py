"""Nested state dictionaries as tensors plus JSON data, and back, without pickling."""

import math
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def split_state(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """Separates the tensors of a nested state from the rest.

    Args:
        state: mappings (keys are strings or integers), lists, tuples, tensors and JSON scalars.

    Returns:
        JSON data, in which a tensor stands as ``{"$tensor": name}``, a mapping with integer keys as
        ``{"$items": [[key, value], ...]}`` and a number that is not finite as ``{"$float": "nan"}``, ``"inf"`` or
        ``"-inf"``; and the tensors by name.

    Raises:
        TypeError: the state holds something else.
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
    """Invert ``split_state`` (tuples come back as lists)."""
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
    """Yield the names of the tensors that JSON data of `split_state` refer to."""
    if isinstance(document, dict):
        if document.keys() == {"$tensor"}:
            yield document["$tensor"]
            return
        document = list(document.values())
    if isinstance(document, list):
        for item in document:
            yield from tensor_names(item)


def seed_generators(seed: int) -> None:
    """Seeds python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries that still draw from it shall repeat too
    torch.manual_seed(seed)


def generators_state(*, cuda: bool = True) -> dict[str, Any]:
    """States of the global generators of python, NumPy, torch and, where there is one, CUDA.

    Args:
        cuda: False leaves CUDA alone, which takes memory in each process that looks at its generators.
    """
    numpy_state: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    version, internal, gauss = random.getstate()
    return {
        "python": [version, list(internal), gauss],
        "numpy": {**numpy_state, "state": {**numpy_state["state"], "key": numpy_state["state"]["key"].tolist()}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if cuda and torch.cuda.is_available() else [],
    }


def set_generators_state(state: Mapping[str, Any]) -> None:
    """Restore the global generators from the result of ``generators_state``."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    numpy_state = dict(state["numpy"])
    numpy_state["state"] = {**numpy_state["state"], "key": np.array(numpy_state["state"]["key"], np.uint32)}
    np.random.set_state(numpy_state)  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        for index, saved in enumerate(state["cuda"][: torch.cuda.device_count()]):  # there may be fewer devices now
            torch.cuda.set_rng_state(saved, index)
