"""Numbers that change with the environment steps taken."""

from __future__ import annotations

import bisect
import itertools
import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from tesserl_configs.base import (
    LEAST,
    MOST,
    MOST_RATE,
    Block,
    Fraction,
    LearningRate,
    NonNegative,
    OpenFraction,
    Positive,
    Real,
    StepsFromZero,
    plain,
)


class Schedule(Block):
    """A curve through knots; before the first knot and after the last one it is constant."""

    kind: Literal["linear", "exponential", "step"] = Field(
        description="Between two knots: linear in the value, linear in its logarithm, or the earlier knot's value."
    )
    knots: tuple[tuple[StepsFromZero, Real], ...] = Field(
        min_length=1, max_length=1_000, description="Pairs [environment step, value], steps strictly increasing."
    )

    @model_validator(mode="after")
    def _check_knots(self) -> Schedule:
        steps = [step for step, _ in self.knots]
        if any(later <= earlier for earlier, later in itertools.pairwise(steps)):
            raise ValueError(f"the steps of the knots must strictly increase, got {steps}")
        values = [value for _, value in self.knots]
        if self.kind == "exponential" and min(values) <= 0:
            raise ValueError(f"an exponential schedule needs values > 0, got {values}; use kind linear")
        return self


def value_at(number: float | Schedule, step: int) -> float:
    """Value of a number of the configuration at one environment step.

    Args:
        number: a plain number or a schedule.
        step: environment steps taken, at least 0.

    Returns:
        The number itself, or the schedule's value.
    """
    if not isinstance(number, Schedule):
        return float(number)
    steps = [knot[0] for knot in number.knots]
    index = bisect.bisect_right(steps, step) - 1
    if index < 0:
        return float(number.knots[0][1])
    if number.kind == "step" or index == len(steps) - 1:
        return float(number.knots[index][1])
    (begin, start), (end, stop) = number.knots[index : index + 2]
    fraction = (step - begin) / (end - begin)
    if number.kind == "linear":
        return start + fraction * (stop - start)
    return math.exp(math.log(start) + fraction * (math.log(stop) - math.log(start)))


def values_of(number: float | Schedule) -> tuple[float, ...]:
    """All values that a number of the configuration is given: of a schedule those of its knots."""
    return tuple(value for _, value in number.knots) if isinstance(number, Schedule) else (number,)


NUMBER_TAG, SCHEDULE_TAG = "a number", "a schedule"
"""Tags of the two forms; no key has a blank, so that they cannot be mistaken for one in the path of an error."""


def _form(value: Any) -> str:
    return SCHEDULE_TAG if isinstance(value, dict | Schedule) else NUMBER_TAG


def _within(low: float, high: float, *, below: bool = False, zero: bool = False) -> AfterValidator:
    """Check the values of all knots against the range of the plain number.

    Args:
        low: smallest value.
        high: largest value; with ``below``, values stay below it.
        below: see ``high``.
        zero: 0 is allowed too, but not everywhere.
    """
    bracket = ")" if below else "]"
    expected = f"lie in [{plain(low)}, {plain(high)}{bracket}" + (" or be 0, not all of them" if zero else "")

    def check(schedule: Schedule) -> Schedule:
        values = values_of(schedule)
        fits = all(low <= value < high if below else low <= value <= high for value in values if value or not zero)
        if not fits or (zero and not any(values)):
            raise ValueError(f"the values of the knots must {expected}, got {list(values)}")
        return schedule

    return AfterValidator(check)


_EITHER = Discriminator(_form)

ScheduledFraction = Annotated[
    Annotated[Fraction, Tag(NUMBER_TAG)] | Annotated[Schedule, _within(0, 1), Tag(SCHEDULE_TAG)], _EITHER
]
ScheduledPositive = Annotated[
    Annotated[Positive, Tag(NUMBER_TAG)] | Annotated[Schedule, _within(LEAST, MOST), Tag(SCHEDULE_TAG)], _EITHER
]
ScheduledRate = Annotated[
    Annotated[LearningRate, Tag(NUMBER_TAG)]
    | Annotated[Schedule, _within(LEAST, MOST_RATE, zero=True), Tag(SCHEDULE_TAG)],
    _EITHER,
]
"""A learning rate: above 0, but a schedule may end at 0."""
ScheduledFractionBelowOne = Annotated[
    Annotated[OpenFraction, Tag(NUMBER_TAG)]
    | Annotated[Schedule, _within(LEAST, 1, below=True, zero=True), Tag(SCHEDULE_TAG)],
    _EITHER,
]
"""Above 0 and below 1, but a schedule may end at 0."""
ScheduledNonNegative = Annotated[
    Annotated[NonNegative, Tag(NUMBER_TAG)] | Annotated[Schedule, _within(0, MOST), Tag(SCHEDULE_TAG)], _EITHER
]
