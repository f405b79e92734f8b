"""Numbers that change with the environment steps taken."""

from __future__ import annotations

import bisect
import itertools
import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from tesserl_configs.base import Block, Fraction, NonNegative, NonNegativeInt, OpenFraction, Positive, Real


class Schedule(Block):
    """A curve through knots; before the first knot and after the last one it is constant."""

    kind: Literal["linear", "exponential", "step"] = Field(
        description="Between two knots: linear in the value, linear in its logarithm, or the earlier knot's value."
    )
    knots: tuple[tuple[NonNegativeInt, Real], ...] = Field(
        min_length=1, description="Pairs [environment step, value], steps strictly increasing."
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


def _unit_values(schedule: Schedule) -> Schedule:
    if not all(0 <= value <= 1 for value in values_of(schedule)):
        raise ValueError(f"the values of the knots must lie in [0, 1], got {list(values_of(schedule))}")
    return schedule


def _positive_values(schedule: Schedule) -> Schedule:
    if min(values_of(schedule)) <= 0:
        raise ValueError(f"the values of the knots must be > 0, got {list(values_of(schedule))}")
    return schedule


def _rate_values(schedule: Schedule) -> Schedule:
    if min(values_of(schedule)) < 0 or max(values_of(schedule)) == 0:
        raise ValueError(f"the values of the knots must be >= 0, one of them > 0, got {list(values_of(schedule))}")
    return schedule


def _fraction_values(schedule: Schedule) -> Schedule:
    if min(values_of(schedule)) < 0 or max(values_of(schedule)) == 0 or max(values_of(schedule)) >= 1:
        raise ValueError(
            f"the values of the knots must lie in [0, 1), one of them above 0, got {list(values_of(schedule))}"
        )
    return schedule


def _values_from_zero(schedule: Schedule) -> Schedule:
    if min(values_of(schedule)) < 0:
        raise ValueError(f"the values of the knots must be >= 0, got {list(values_of(schedule))}")
    return schedule


ScheduledFraction = Annotated[
    Annotated[Fraction, Tag(NUMBER_TAG)] | Annotated[Schedule, AfterValidator(_unit_values), Tag(SCHEDULE_TAG)],
    Discriminator(_form),
]
ScheduledPositive = Annotated[
    Annotated[Positive, Tag(NUMBER_TAG)] | Annotated[Schedule, AfterValidator(_positive_values), Tag(SCHEDULE_TAG)],
    Discriminator(_form),
]
ScheduledRate = Annotated[
    Annotated[Positive, Tag(NUMBER_TAG)] | Annotated[Schedule, AfterValidator(_rate_values), Tag(SCHEDULE_TAG)],
    Discriminator(_form),
]
"""A learning rate: above 0, but a schedule may end at 0."""
ScheduledFractionBelowOne = Annotated[
    Annotated[OpenFraction, Tag(NUMBER_TAG)] | Annotated[Schedule, AfterValidator(_fraction_values), Tag(SCHEDULE_TAG)],
    Discriminator(_form),
]
"""Above 0 and below 1, but a schedule may end at 0."""
ScheduledNonNegative = Annotated[
    Annotated[NonNegative, Tag(NUMBER_TAG)] | Annotated[Schedule, AfterValidator(_values_from_zero), Tag(SCHEDULE_TAG)],
    Discriminator(_form),
]
