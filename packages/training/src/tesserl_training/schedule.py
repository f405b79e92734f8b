"""Hyper-parameters that change with the step."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Scheduled:
    """A hyper-parameter as a function of the environment step.

    Args:
        name: as it appears in the metrics, below ``schedule/``.
        value: function from the step to the value.
        apply: sets the value.
    """

    name: str
    value: Callable[[int], float]
    apply: Callable[[float], None]
