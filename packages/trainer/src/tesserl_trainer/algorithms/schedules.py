"""Numbers of the schema that may change with the step, as schedules of what they belong to."""

import functools
from collections.abc import Callable

from tesserl_configs import Schedule, value_at
from tesserl_training.schedule import Scheduled

Number = float | Schedule
"""A number of the schema that may change with the step."""


def scheduled(name: str, number: Number, apply: Callable[[float], None]) -> Scheduled:
    """Return the schedule of a number of the schema."""
    return Scheduled(name, lambda step: value_at(number, step), apply)


def attributes(owner: object, **numbers: Number | None) -> list[Scheduled]:
    """Return the schedules of an object's attributes, such as the coefficients of a loss; None has no schedule."""
    return [
        scheduled(name, number, functools.partial(setattr, owner, name))
        for name, number in numbers.items()
        if number is not None
    ]


def at_start(number: Number | None) -> float | None:
    """Return the value of a number at step 0; None for none."""
    return None if number is None else value_at(number, 0)
