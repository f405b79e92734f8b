"""Turn configured numbers that may change with the step into schedules."""

import functools
from collections.abc import Callable

from tesserl_configs import Schedule, value_at
from tesserl_training.schedule import Scheduled

Number = float | Schedule
"""A configured number that may change with the step."""


def scheduled(name: str, number: Number, apply: Callable[[float], None]) -> Scheduled:
    """Return the schedule of a configured number."""
    return Scheduled(name, lambda step: value_at(number, step), apply)


def attributes(owner: object, **numbers: Number | None) -> list[Scheduled]:
    """Return schedules that set an object's attributes, such as the coefficients of a loss; skip None."""
    return [
        scheduled(name, number, functools.partial(setattr, owner, name))
        for name, number in numbers.items()
        if number is not None
    ]


def at_start(number: Number | None) -> float | None:
    """Return the value of a number at step 0; None stays None."""
    return None if number is None else value_at(number, 0)
