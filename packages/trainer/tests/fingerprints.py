"""Everything that a built loop was given: constructor arguments, attributes, buffers, and what closures hold."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from tesserl_configs import RunConfig

PLAIN = (bool, int, float, str, bytes, type(None), type, range)
SMALL = 64


def fingerprint(root: object) -> dict[str, str]:
    """Return path -> value of every plain value, array and generator below an object, each object once."""
    return dict(_entries(root))


def _entries(root: object) -> Iterator[tuple[str, str]]:
    seen: set[int] = set()
    kept = []  # an id is only unique while its object lives
    stack: list[tuple[str, Any]] = [("", root)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, PLAIN):
            yield path, repr(value)
            continue
        if isinstance(value, RunConfig) or id(value) in seen:  # it holds every key, used or not
            continue
        seen.add(id(value))
        kept.append(value)
        if isinstance(value, torch.Tensor | np.ndarray):
            small = int(np.prod(value.shape)) <= SMALL
            strides = value.stride() if torch.is_tensor(value) else value.strides
            yield path, f"{tuple(value.shape)} {strides} {value.dtype} {value.tolist() if small else ''}"
        elif isinstance(value, torch.Generator | np.random.Generator):
            yield path, repr(value.initial_seed() if isinstance(value, torch.Generator) else value.bit_generator.state)
        else:
            yield path, repr(type(value))
            stack += [(f"{path}.{name}", inner) for name, inner in _inside(value)]


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an object holds, by name."""
    if isinstance(value, Mapping):
        yield from ((str(key), inner) for key, inner in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((str(index), inner) for index, inner in enumerate(value))
    elif isinstance(value, functools.partial):
        yield from {"function": value.func, "arguments": value.args, "keywords": value.keywords}.items()
    elif isinstance(value, types.MethodType):
        yield from {"function": value.__func__, "of": value.__self__}.items()
    elif isinstance(value, types.FunctionType):
        yield "name", value.__qualname__
        yield "defaults", value.__defaults__
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            yield name, cell.cell_contents
    elif not isinstance(value, types.ModuleType):
        yield from getattr(value, "__dict__", {}).items()
        for kind in type(value).__mro__:
            slots = kind.__dict__.get("__slots__", ())
            names = (slots,) if isinstance(slots, str) else tuple(slots)
            yield from ((name, getattr(value, name)) for name in names if hasattr(value, name))
