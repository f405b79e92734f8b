"""Checked access to keys and values that were read from a file; errors name the place of a wrong value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tesserl_storage.errors import StorageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Fields:
    """Checked access to keys and values.

    Args:
        value: value that was read.
        where: place of the value, for messages: a file, or a dotted path.

    Raises:
        StorageError: the value is not a mapping. All methods raise it too, if an entry is missing or of another kind.
    """

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise StorageError(f"{where}: expected keys and values, got {_kind(value)}")
        self.value, self.where = value, where

    def take(self, name: str) -> Any:
        """Return an entry without checking its type."""
        if name not in self.value:
            raise StorageError(f"{self.where}: expected an entry {name!r}, got {', '.join(map(str, self.value))}")
        return self.value[name]

    def fields(self, name: str) -> Fields:
        """Return an entry that is a mapping."""
        return Fields(self.take(name), self._place(name))

    def integer(self, name: str, *, least: int = 0, most: int = 2**63 - 1) -> int:
        """Return a whole number from ``least`` to ``most``."""
        value = self.take(name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self._wrong(name, f"a whole number from {least} to {most}", value)
        return value

    def number(self, name: str, *, least: float = float("-inf")) -> float:
        """Return a number that is at least ``least``; accept NaN only without a bound."""
        value = self.take(name)
        unbounded = least == float("-inf")
        if not isinstance(value, int | float) or isinstance(value, bool) or not (unbounded or value >= least):
            raise self._wrong(name, "a number" if unbounded else f"a number of at least {least}", value)
        return value

    def flag(self, name: str) -> bool:
        """Return a boolean."""
        value = self.take(name)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false", value)
        return value

    def text(self, name: str) -> str:
        """Return text."""
        value = self.take(name)
        if not isinstance(value, str):
            raise self._wrong(name, "text", value)
        return value

    def items(self, name: str) -> list[Any]:
        """Return a list."""
        value = self.take(name)
        if not isinstance(value, list):
            raise self._wrong(name, "a list", value)
        return value

    def texts(self, name: str) -> list[str]:
        """Return a list of text."""
        values = self.items(name)
        if not all(isinstance(value, str) for value in values):
            raise self._wrong(name, "a list of text", values)
        return values

    def integers(self, name: str) -> list[int]:
        """Return a list of whole numbers that are not negative."""
        values = self.items(name)
        if not all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values):
            raise self._wrong(name, "a list of whole numbers", values)
        return values

    def scalar(self, name: str) -> Tensor:
        """Return a floating-point tensor of one number, whatever its shape."""
        value = self.take(name)
        if not _is_tensor(value) or value.numel() != 1 or not value.is_floating_point():
            raise self._wrong(name, "a tensor of one number", value)
        return value

    def pairs(self, name: str) -> list[tuple[float, int]]:
        """Return a list of pairs of a number and a whole number."""
        found = []
        for index, value in enumerate(self.items(name)):
            if not isinstance(value, list) or len(value) != 2:
                raise self._wrong(name, "a list of pairs of numbers", value)
            entry = Fields(dict(zip(("first", "second"), value, strict=True)), f"{self._place(name)}.{index}")
            found.append((entry.number("first"), entry.integer("second")))
        return found

    def tensor(self, name: str, shape: tuple[int | None, ...], dtype: torch.dtype) -> Tensor:
        """Return a tensor of a dtype and a shape; None in the shape allows any size."""
        value = self.take(name)
        wanted = f"{dtype} {list(shape)}".replace("None", "any")
        if not _is_tensor(value):
            raise self._wrong(name, f"a tensor {wanted}", value)
        same = value.dim() == len(shape) and all(
            size in (None, given) for size, given in zip(shape, value.shape, strict=True)
        )
        if not same or value.dtype != dtype:
            raise self._wrong(name, f"a tensor {wanted}", value)
        return value

    def _place(self, name: str) -> str:
        return f"{self.where}: {name}" if ": " not in self.where else f"{self.where}.{name}"

    def _wrong(self, name: str, expected: str, value: Any) -> StorageError:
        return StorageError(f"{self._place(name)}: expected {expected}, got {_kind(value)}")


def _is_tensor(value: Any) -> bool:
    """Return whether a value is a tensor, without importing torch: only tensors in a state have a dtype."""
    return hasattr(value, "dtype")


def _kind(value: Any) -> str:
    """Return a short description of a value."""
    if _is_tensor(value):
        return f"a tensor {value.dtype} {list(value.shape)}"
    if isinstance(value, Mapping):
        return "keys and values"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return f"{value!r:.60}"
