"""Numbers that change with the number of environment steps."""

from __future__ import annotations

import bisect
import itertools
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, GetCoreSchemaHandler, Tag, model_validator
from pydantic_core import CoreSchema

from tesserl_configs.base import (
    Block,
    Fraction,
    LearningRate,
    NonNegative,
    OpenFraction,
    Positive,
    Real,
    StepsFromZero,
    bounds_in,
    plain,
)


class Schedule(Block):
    """A curve through knots, constant before the first knot and after the last one."""

    kind: Literal["linear", "exponential", "step"] = Field(
        description=(
            "Value between two knots: linear, exponential (linear in the logarithm), or step (that of the earlier "
            "knot)."
        )
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
    """Return the value of a number of the configuration at one environment step.

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
    """Return the values of a number or schedule: the number itself, or the values of the knots."""
    return tuple(value for _, value in number.knots) if isinstance(number, Schedule) else (number,)


NUMBER_TAG, SCHEDULE_TAG = "a number", "a schedule"
"""Tags of the two forms. They contain blanks, so that they differ from every key in the path of an error."""


def _form(value: Any) -> str:
    return SCHEDULE_TAG if isinstance(value, dict | Schedule) else NUMBER_TAG


@dataclass(frozen=True)
class Scheduled:
    """Annotation of ``float | Schedule`` that checks all values of a schedule against the range of the plain number."""

    number: Any  # bounded type of the plain number
    zero: bool = False  # whether a schedule may have values of 0 although the range excludes them

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema of the union of number and schedule."""
        schedule = Annotated[Schedule, AfterValidator(self._check), Tag(SCHEDULE_TAG)]
        return handler.generate_schema(
            Annotated[Annotated[self.number, Tag(NUMBER_TAG)] | schedule, Discriminator(_form)]
        )

    def _check(self, schedule: Schedule) -> Schedule:
        """Check the values of all knots against the bounds of the plain number."""
        bounds = bounds_in(self.number.__metadata__[0].metadata)
        low, high = bounds["ge"], bounds["le"] if "le" in bounds else bounds["lt"]
        values = values_of(schedule)
        checked = [value for value in values if value or not self.zero]
        if not checked or min(checked) < low or max(checked) > high or (max(checked) == high and "lt" in bounds):
            bracket = "]" if "le" in bounds else ")"
            expected = f"lie in [{plain(low)}, {plain(high)}{bracket}" + (" or be 0, not all of them" * self.zero)
            raise ValueError(f"the values of the knots must {expected}, got {list(values)}")
        return schedule


ScheduledFraction = Annotated[float | Schedule, Scheduled(Fraction)]
ScheduledPositive = Annotated[float | Schedule, Scheduled(Positive)]
ScheduledNonNegative = Annotated[float | Schedule, Scheduled(NonNegative)]
ScheduledRate = Annotated[float | Schedule, Scheduled(LearningRate, zero=True)]
"""A learning rate: above 0, but a schedule may end at 0."""
ScheduledFractionBelowOne = Annotated[float | Schedule, Scheduled(OpenFraction, zero=True)]
"""Above 0 and below 1, but a schedule may end at 0."""
