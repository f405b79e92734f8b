"""Check that arrays of a task have the shape and the dtype that its spaces declare."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

NUMBERS = "biuf"
"""NumPy kinds of dtypes that hold real numbers or booleans."""


def fit(array: NDArray[Any], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array, converted to its declared dtype.

    Floats of another precision are converted, and so are integers or booleans if floats are declared. Integers of
    another dtype are converted if no value changes.

    Args:
        array: array of any dtype.
        shape: declared shape.
        dtype: declared dtype.

    Raises:
        ValueError: the shape differs, or the dtype cannot be converted.
    """
    if array.shape != shape:
        raise ValueError(f"expected an array of shape {shape}, got {array.shape}")
    if array.dtype == dtype:
        return array
    if array.dtype.kind in NUMBERS and (dtype.kind == "f" or array.dtype.kind != "f"):
        with np.errstate(over="ignore"):  # infinities are reported later, where values must be finite
            converted = array.astype(dtype)
        if dtype.kind == "f" or np.array_equal(converted, array):
            return converted
    values = f" with values from {array.min()} to {array.max()}" if array.size and array.dtype.kind in NUMBERS else ""
    raise ValueError(f"expected an array of type {dtype}, got {array.dtype}{values}")
