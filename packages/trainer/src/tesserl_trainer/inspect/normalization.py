"""The option ``--normalize`` of ``tesserl compare``."""

from collections.abc import Sequence

from tesserl_analysis.comparison import Bounds, ComparisonArgumentError


def parse_bounds(values: Sequence[str], *, several_tasks: bool) -> dict[str, Bounds] | None:
    """Parse ``--normalize``: none, reference, or one TASK=LOW:HIGH per task; the default scales several tasks."""
    if "none" in values and len(values) > 1:
        raise ComparisonArgumentError("--normalize none: stands alone")
    if not values or list(values) == ["none"]:
        return {} if several_tasks and not values else None
    bounds: dict[str, Bounds] = {}
    for value in values:
        if value == "reference":
            continue
        task, _, numbers = value.rpartition("=")
        try:
            low, high = map(float, numbers.split(":"))
        except ValueError:
            raise ComparisonArgumentError(
                f"--normalize {value}: expected none, reference or TASK=LOW:HIGH, such as breakout=0:20"
            ) from None
        bounds[task] = (low, high)
    return bounds
