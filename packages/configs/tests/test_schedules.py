import pytest
from pydantic import ValidationError

from tesserl_configs import Schedule, value_at


def schedule(kind, *knots):
    return Schedule(kind=kind, knots=knots)


def test_a_plain_number_is_the_same_at_every_step():
    assert value_at(0.25, 0) == value_at(0.25, 10**9) == 0.25


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 1.0), (10, 1.0), (15, 0.75), (20, 0.5), (60, 0.3), (100, 0.1), (101, 0.1)],
    ids=lambda value: str(value),
)
def test_linear_goes_straight_between_knots_and_is_constant_outside(step, expected):
    # from 1 at 10 to 0.5 at 20: 0.05 a step; from 0.5 at 20 to 0.1 at 100: 0.005 a step
    assert value_at(schedule("linear", (10, 1.0), (20, 0.5), (100, 0.1)), step) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("step", "expected"), [(0, 1.0), (50, 0.1), (100, 0.01), (25, 10**-0.5), (200, 0.01)])
def test_exponential_multiplies_by_the_same_factor_each_step(step, expected):
    assert value_at(schedule("exponential", (0, 1.0), (100, 0.01)), step) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("step", "expected"), [(0, 3.0), (9, 3.0), (10, 2.0), (19, 2.0), (20, 7.0), (99, 7.0)])
def test_step_changes_at_the_knots_only(step, expected):
    assert value_at(schedule("step", (5, 3.0), (10, 2.0), (20, 7.0)), step) == expected


def test_knots_must_strictly_increase():
    with pytest.raises(ValidationError, match=r"must strictly increase, got \[0, 5, 5\]"):
        schedule("linear", (0, 1.0), (5, 0.5), (5, 0.1))


def test_an_exponential_schedule_needs_positive_values():
    with pytest.raises(ValidationError, match=r"needs values > 0, got \[1\.0, 0\.0\]; use kind linear"):
        schedule("exponential", (0, 1.0), (5, 0.0))


def test_a_schedule_has_a_knot():
    with pytest.raises(ValidationError, match="at least 1 item"):
        schedule("linear")


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("iqn.exploration.epsilon", "[0, 1.5]", "must lie in [0, 1], got [1.5]"),
        ("optimizer.learning_rate", "[0, -1.0]", "must lie in [1e-12, 1000] or be 0, not all of them, got [-1.0]"),
        ("optimizer.learning_rate", "[0, 0.0]", "must lie in [1e-12, 1000] or be 0, not all of them, got [0.0]"),
    ],
)
def test_the_range_of_a_number_is_that_of_its_schedule(errors_of, key, values, message):
    assert message in errors_of(f"{key}={{kind: linear, knots: [{values}]}}")[0]


def test_a_temperature_stays_above_zero(errors_of):
    exploration = "{kind: boltzmann, temperature: {kind: linear, knots: [[0, 1.0], [9, 0]]}}"
    [message] = errors_of(f"iqn.exploration={exploration}")
    assert message.endswith(
        "iqn.exploration.temperature: the values of the knots must lie in [1e-12, 1e9], got [1.0, 0.0]"
    )


def test_a_learning_rate_may_end_at_zero(load):
    config = load("optimizer: {kind: adam, learning_rate: {kind: linear, knots: [[0, 1e-3], [1_000, 0]]}}\n")
    assert value_at(config.optimizer.learning_rate, 500) == pytest.approx(5e-4)
