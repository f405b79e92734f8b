"""Seed the global random generators of Python, NumPy and torch, and save their states as plain data."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def seed_generators(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries that still draw from it shall repeat too
    torch.manual_seed(seed)


def generators_state(*, cuda: bool = True) -> dict[str, Any]:
    """Return the states of the global generators of Python, NumPy, torch and, if available, CUDA.

    Args:
        cuda: whether to include CUDA; reading its generators takes GPU memory in each process.
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
        for index, saved in enumerate(state["cuda"][: torch.cuda.device_count()]):  # now there may be fewer devices
            torch.cuda.set_rng_state(saved, index)
