"""Transitions that end at a fixed horizon, by hand."""

import pytest
import torch

from tesserl_iqn import end_at_horizon, sample_clock

CASES = {  # clock, steps, terminated -> reward, steps, terminated, clock behind; rewards 1, 2, 4 and a horizon of 5
    "far from it": ((0, 3, False), (7.0, 3, False, 3)),
    "one step left": ((1, 3, False), (7.0, 3, False, 4)),
    "exactly at it": ((2, 3, False), (7.0, 3, True, 5)),
    "beyond it": ((3, 3, False), (3.0, 2, True, 5)),
    "far beyond it": ((4, 3, False), (1.0, 1, True, 5)),
    "the episode ends before": ((1, 2, True), (3.0, 2, True, 3)),
    "the episode would end behind": ((4, 2, True), (1.0, 1, True, 5)),
    "a shorter window": ((3, 1, False), (1.0, 1, False, 4)),
}


def test_a_transition_ends_where_the_horizon_does():
    clock, steps, terminated = (
        torch.tensor(column) for column in zip(*(case for case, _ in CASES.values()), strict=True)
    )
    partial = torch.tensor([1.0, 3.0, 7.0]).expand(len(CASES), 3)
    got = end_at_horizon(partial, steps, terminated, clock, 5)
    for column, expected in zip(got, zip(*(result for _, result in CASES.values()), strict=True), strict=True):
        assert column.tolist() == list(expected)


def test_undiscounted_values_of_a_horizon_are_its_rewards():
    """One state, reward 1, discount 1: the value at clock t is H - t, whatever the number of steps."""
    horizon = 6
    for num_steps in (1, 2, 4):
        value = torch.zeros(horizon + 1)
        for _ in range(horizon):
            clock = torch.arange(horizon)
            partial = torch.arange(1.0, num_steps + 1).expand(horizon, -1)
            steps, terminated = torch.full((horizon,), num_steps), torch.zeros(horizon, dtype=torch.bool)
            reward, _, ended, later = end_at_horizon(partial, steps, terminated, clock, horizon)
            value[:horizon] = reward + torch.where(ended, 0.0, value[later])
        assert value.tolist() == [6, 5, 4, 3, 2, 1, 0]


def test_clocks_are_uniform_but_for_those_at_the_start():
    torch.manual_seed(0)
    counts = sample_clock(40_000, 4, start_fraction=0.2).bincount() / 40_000
    torch.testing.assert_close(counts, torch.tensor([0.4, 0.2, 0.2, 0.2]), atol=0.01, rtol=0)
    assert sample_clock(9, 7, start_fraction=1).tolist() == [0] * 9


@pytest.mark.parametrize(("horizon", "shape"), [(0, (2,)), (3, (3,))])
def test_bad_input_is_refused(horizon, shape):
    with pytest.raises(ValueError, match="horizon must be at least 1, and steps, terminated and clock must have"):
        end_at_horizon(
            torch.zeros(2, 3), torch.ones(shape).long(), torch.zeros(2).bool(), torch.zeros(2).long(), horizon
        )
