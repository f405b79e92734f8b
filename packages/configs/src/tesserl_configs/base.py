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


Integer = Annotated[int, _no_text("int_type")]
Real = Annotated[float, _no_text("float_type")]

Count = Annotated[Integer, Field(ge=1)]
Seed = Annotated[Integer, Field(ge=0)]
Positive = Annotated[Real, Field(gt=0)]
NonNegative = Annotated[Real, Field(ge=0)]
Fraction = Annotated[Real, Field(ge=0, le=1)]
Widths = tuple[Count, ...]
