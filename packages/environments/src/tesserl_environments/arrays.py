"""Arrays of a task that must have the shape and the type that its spaces declare."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

NUMBERS = "biuf"
"""Kinds of types that are real numbers or truth values."""


def fit(array: NDArray[Any], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array in its declared type.

    Floats of another precision, and integers or booleans where floats are declared, are converted. Integers of another
    type are converted if none of them changes.

    Args:
        array: of any type.
        shape: declared shape.
        dtype: declared type.

    Raises:
        ValueError: the shape is another one, or the type cannot be converted.
    """
    if array.shape != shape:
        raise ValueError(f"expected an array of shape {shape}, got {array.shape}")
    if array.dtype == dtype:
        return array
    if array.dtype.kind in NUMBERS and (dtype.kind == "f" or array.dtype.kind != "f"):
        with np.errstate(over="ignore"):  # infinities are reported where finite numbers are needed
            converted = array.astype(dtype)
        if dtype.kind == "f" or np.array_equal(converted, array):
            return converted
    values = f" with values from {array.min()} to {array.max()}" if array.size and array.dtype.kind in NUMBERS else ""
    raise ValueError(f"expected an array of type {dtype}, got {array.dtype}{values}")
