"""What all blocks of the schema have in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticKnownError

KnownError = Literal["int_type", "float_type"]


class Block(BaseModel):
    """A mapping of the YAML file: its keys are fixed, its values do not change."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        defer_build=True,  # building the validators takes longer than importing the package may
    )


def _no_text(kind: KnownError) -> BeforeValidator:
    """Refuses what pydantic would silently turn into a number: truth values and text."""

    def check(value: Any) -> Any:
        if isinstance(value, bool | str):
            raise PydanticKnownError(kind)
        return value

    return BeforeValidator(check)


# A bound stands before the check for text: behind it, it would be missing from the JSON Schema.
_WHOLE, _NUMBER = _no_text("int_type"), _no_text("float_type")
Count = Annotated[int, Field(ge=1), _WHOLE]
AtLeastTwo = Annotated[int, Field(ge=2), _WHOLE]
NonNegativeInt = Annotated[int, Field(ge=0), _WHOLE]
ThreadOffset = Annotated[int, Field(ge=-1), _WHOLE]
Real = Annotated[float, _NUMBER]
Positive = Annotated[float, Field(gt=0), _NUMBER]
AtLeastOne = Annotated[float, Field(ge=1), _NUMBER]
AboveOne = Annotated[float, Field(gt=1), _NUMBER]
NonNegative = Annotated[float, Field(ge=0), _NUMBER]
NonPositive = Annotated[float, Field(le=0), _NUMBER]
Fraction = Annotated[float, Field(ge=0, le=1), _NUMBER]
FractionBelowOne = Annotated[float, Field(ge=0, lt=1), _NUMBER]
FractionAboveZero = Annotated[float, Field(gt=0, le=1), _NUMBER]
OpenFraction = Annotated[float, Field(gt=0, lt=1), _NUMBER]
UpToHalf = Annotated[float, Field(ge=0, le=0.5), _NUMBER]
UpToHalfAboveZero = Annotated[float, Field(gt=0, le=0.5), _NUMBER]
BelowHalf = Annotated[float, Field(ge=0, lt=0.5), _NUMBER]
Widths = tuple[Count, ...]
