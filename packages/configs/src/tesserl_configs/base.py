"""The base class of all blocks, and bounded types of numbers and text.

A bound belongs to the quantity (a probability is at most 1), or lies beyond the size that any machine can run. So a
mistyped number fails with its key when the file is read, and not in a library an hour later.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticKnownError

from tesserl_configs.limits import (
    MOST_AT_ONCE,
    MOST_PIXELS,
    MOST_SEED,
    MOST_STEPS,
    MOST_TASK_SEED,
    MOST_THREADS,
    MOST_WIDTH,
)

KnownError = Literal["int_type", "float_type"]


class Block(BaseModel):
    """A mapping of the YAML file with a fixed set of keys; instances are immutable."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        defer_build=True,  # building the validators takes longer than importing the package may
    )


class Absent(Block):
    """Leave this part out."""

    kind: Literal["none"] = "none"


def _no_text(kind: KnownError) -> BeforeValidator:
    """Return a validator that refuses truth values and text, which pydantic would turn into a number."""

    def check(value: Any) -> Any:
        if isinstance(value, bool | str):
            raise PydanticKnownError(kind)
        return value

    return BeforeValidator(check)


# Bounds come before the check for text: after it, they would be missing from the JSON Schema.
_WHOLE, _NUMBER = _no_text("int_type"), _no_text("float_type")


def plain(number: float) -> str:
    """Return a number as a file would write it, such as 65536, 1e9 or 0.5."""
    text = f"{number:g}"
    exact = text if float(text) == number else str(number)
    return re.sub(r"e([+-])0*", lambda found: f"e{found[1].strip('+')}", exact)


def bounds_in(metadata: Iterable[Any]) -> dict[str, float]:
    """Return the bounds ``gt``, ``ge``, ``lt`` and ``le`` in the metadata of a number's type."""
    names = ("gt", "ge", "lt", "le")
    return {name: getattr(entry, name) for entry in metadata for name in names if hasattr(entry, name)}


# --- whole numbers -----------------------------------------------------------------------------------------------

Steps = Annotated[int, Field(ge=1, le=MOST_STEPS), _WHOLE]
"""Environment steps or gradient updates: of a run, or from one event to the next."""
StepsFromZero = Annotated[int, Field(ge=0, le=MOST_STEPS), _WHOLE]
Seed = Annotated[int, Field(ge=0, le=MOST_SEED), _WHOLE]
TaskSeed = Annotated[int, Field(ge=0, le=MOST_TASK_SEED), _WHOLE]
Count = Annotated[int, Field(ge=1, le=MOST_AT_ONCE), _WHOLE]
CountFromZero = Annotated[int, Field(ge=0, le=MOST_AT_ONCE), _WHOLE]
Window = Annotated[int, Field(ge=1, le=10_000), _WHOLE]
"""Steps of a multi-step window, which are held back until the window is complete."""
GroupSize = Annotated[int, Field(ge=2, le=65_536), _WHOLE]
Capacity = Annotated[int, Field(ge=1, le=1_000_000_000), _WHOLE]
Frames = Annotated[int, Field(ge=1, le=2**31 - 1), _WHOLE]
"""Frames of an episode; emulators count them in 32 bits."""
Environments = Annotated[int, Field(ge=1, le=65_536), _WHOLE]
Threads = Annotated[int, Field(ge=1, le=MOST_THREADS), _WHOLE]
Delay = Annotated[int, Field(ge=0, le=1), _WHOLE]
"""Rounds of the training loop."""
ThreadsFromZero = Annotated[int, Field(ge=0, le=MOST_THREADS), _WHOLE]
ThreadOffset = Annotated[int, Field(ge=-1, le=MOST_THREADS - 1), _WHOLE]

# --- sizes of networks and images --------------------------------------------------------------------------------

Width = Annotated[int, Field(ge=1, le=MOST_WIDTH), _WHOLE]
Widths = Annotated[tuple[Width, ...], Field(max_length=64)]
Layers = Annotated[int, Field(ge=1, le=256), _WHOLE]
LayersFromZero = Annotated[int, Field(ge=0, le=256), _WHOLE]
Pixels = Annotated[int, Field(ge=1, le=MOST_PIXELS), _WHOLE]
PixelsFromZero = Annotated[int, Field(ge=0, le=MOST_PIXELS), _WHOLE]
Sides = Annotated[tuple[Pixels, ...], Field(max_length=64)]
Stack = Annotated[int, Field(ge=1, le=256), _WHOLE]
"""Images in one observation."""

# --- numbers -----------------------------------------------------------------------------------------------------

LEAST, MOST = 1e-12, 1e9
"""Magnitudes that stay far from what float32 can hold when they are squared and summed over a batch."""
MOST_RATE = 1e3

Real = Annotated[float, Field(ge=-MOST, le=MOST), _NUMBER]
Positive = Annotated[float, Field(ge=LEAST, le=MOST), _NUMBER]
NonNegative = Annotated[float, Field(ge=0, le=MOST), _NUMBER]
NonPositive = Annotated[float, Field(ge=-MOST, le=0), _NUMBER]
AtLeastOne = Annotated[float, Field(ge=1, le=MOST), _NUMBER]
AboveOne = Annotated[float, Field(gt=1, le=MOST), _NUMBER]
LearningRate = Annotated[float, Field(ge=LEAST, le=MOST_RATE), _NUMBER]
Epsilon = Annotated[float, Field(ge=1e-20, le=1e3), _NUMBER]
"""Term added to a divisor."""
Exponent = Annotated[float, Field(ge=-100, le=100), _NUMBER]
PositiveExponent = Annotated[float, Field(ge=1e-3, le=100), _NUMBER]
Ratio = Annotated[float, Field(ge=1, le=64), _NUMBER]
"""A width divided by another one."""
Seconds = Annotated[float, Field(ge=1e-3, le=1e6), _NUMBER]
"""Time to wait; the system counts it in milliseconds, in 32 bits."""
Fraction = Annotated[float, Field(ge=0, le=1), _NUMBER]
FractionBelowOne = Annotated[float, Field(ge=0, lt=1), _NUMBER]
FractionAboveZero = Annotated[float, Field(ge=LEAST, le=1), _NUMBER]
OpenFraction = Annotated[float, Field(ge=LEAST, lt=1), _NUMBER]
UpToHalf = Annotated[float, Field(ge=0, le=0.5), _NUMBER]
UpToHalfAboveZero = Annotated[float, Field(ge=LEAST, le=0.5), _NUMBER]
BelowHalf = Annotated[float, Field(ge=0, lt=0.5), _NUMBER]

# --- text --------------------------------------------------------------------------------------------------------

MOST_NAME_BYTES = 200
"""File systems allow 255 bytes; the rest is for what commands append."""


def short_enough(name: str) -> str:
    """Return the name of a run; refuse one that is too long for a directory."""
    size = len(name.encode())
    if size > MOST_NAME_BYTES:
        raise ValueError(f"expected at most {MOST_NAME_BYTES} bytes, as it becomes a directory, got {size}")
    return name


NAME_PATTERN = r"^\w[\w.+-]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=MOST_NAME_BYTES), AfterValidator(short_enough)]
"""Name of a run, which becomes the name of a directory."""
ONE_LINE = r"^[^\x00-\x1f\x7f]+$"
Text = Annotated[str, Field(min_length=1, max_length=1_000, pattern=ONE_LINE)]
"""One line of text: a path, or a name outside of the file."""
Tags = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=64, pattern=ONE_LINE)], ...], Field(max_length=64)]
"""Tags by which a logger finds runs."""
MODULE_PATTERN = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"
Module = Annotated[str, Field(max_length=1_000, pattern=f"^{MODULE_PATTERN}$")]
"""Name of a Python module."""
ModuleAndName = Annotated[str, Field(max_length=1_000, pattern=f"^{MODULE_PATTERN}:{MODULE_PATTERN}$")]
"""Name of an object in a module, ``module:name``."""
