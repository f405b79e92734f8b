"""Transitions that end at a fixed horizon, and crops of images, by hand."""

import pytest
import torch
from tensordict import TensorDict

from tesserl_iqn import crop_pixels, end_at_horizon, prepare_batches, sample_clock, set_clock

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


def test_a_transition_is_put_at_a_random_place_of_the_horizon():
    torch.manual_seed(0)
    observation = torch.arange(1.0, 13.0).reshape(4, 3)
    following = {
        "observation": observation + 20,
        "reward": torch.full((4, 1), 9.0),
        "terminated": torch.zeros(4, 1).bool(),
    }
    drawn = TensorDict(
        {
            "observation": observation.clone(),
            "partial_returns": torch.tensor([[1.0, 3.0]]).expand(4, 2),
            "steps_to_next_obs": torch.full((4, 1), 2),
            "next": following,
        },
        [4],
    )
    copied = drawn.copy()
    set_clock(copied, 2, 0.0)
    clock = copied["observation"][:, 0] * 2
    assert set(clock.tolist()) == {0, 1}
    assert copied["next", "reward"][:, 0].tolist() == [3.0 if t == 0 else 1.0 for t in clock.tolist()]
    assert copied["steps_to_next_obs"][:, 0].tolist() == [2 if t == 0 else 1 for t in clock.tolist()]
    assert copied["next", "terminated"].all()
    assert (copied["next", "observation"][:, 0] == 1).all()
    assert torch.equal(copied["observation"][:, 1:], observation[:, 1:])
    assert torch.equal(drawn["observation"], observation)
    assert (drawn["next", "reward"] == 9).all()


def test_crops_are_of_what_is_learned_from_and_leave_the_batch_as_it_is():
    pixels = torch.randint(256, (2, 6, 4, 10, 10), dtype=torch.uint8)
    drawn, seen = TensorDict({"pixels": pixels[0], "next": {"pixels": pixels[1]}}, [6]), []

    def forward(shifted):
        seen.append(shifted.clone())
        shifted["td_error"] = torch.arange(6.0)
        return TensorDict({"loss": torch.zeros(())})

    before = drawn.clone()
    prepare_batches(forward, [lambda copied: crop_pixels(copied, 2)])(drawn)
    for key in ("pixels", ("next", "pixels")):
        assert torch.equal(drawn[key], before[key])
        moved = [not torch.equal(new, old) for new, old in zip(seen[0][key], drawn[key], strict=True)]
        assert sum(moved) >= 3
    assert torch.equal(drawn["td_error"], torch.arange(6.0))


def test_without_preparations_batches_are_not_copied():
    assert prepare_batches(dict, []) is dict
