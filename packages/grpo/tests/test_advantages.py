"""Advantages against reference numbers and against plain loops."""

import statistics

import numpy as np
import pytest
import torch

from tesserl_grpo import group_advantages, group_advantages_to_go, linear_baseline
from tesserl_grpo.advantages import group_places
from tesserl_policy import returns_to_go


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


CASES = {
    "none": {},
    "group_ddof1_eps1e_4": {"scale": "group"},
    "group_ddof0_eps1e_8": {"scale": "group", "ddof": 0, "eps": 1e-8},
    "batch_ddof1_eps1e_4": {"scale": "batch"},
    "rloo": {"baseline": "leave_one_out"},
    "torchrl_mcadvantage": {"scale": "group", "eps": 0.0},
}


@pytest.mark.parametrize(("name", "options"), CASES.items(), ids=CASES.keys())
def test_group_advantages_are_the_reference_numbers(vectors, name, options):
    data = vectors("grpo_advantages")
    advantages, expected = group_advantages(f64(data["returns"]), **options), f64(data[name])
    same = data["zero_variance_groups"]
    if options.get("eps") == 0.0:  # torchrl bounds the deviation from below instead of adding to it
        advantages = advantages.index_fill(0, torch.tensor(same), 0.0)
    torch.testing.assert_close(advantages, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", ["none", "group", "batch"])
def test_advantages_of_a_group_add_up_to_zero(scale):
    returns = torch.randn(7, 5, dtype=torch.float64) * 100 - 1000
    advantages = group_advantages(returns, scale=scale)
    torch.testing.assert_close(advantages.sum(dim=-1), torch.zeros(7, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("scale", ["none", "group", "batch"])
@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
def test_a_group_of_equal_returns_has_no_advantage_at_all(scale, baseline):
    returns = torch.tensor([[0.1] * 7, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]])
    assert returns[0].mean() != returns[0, 0]  # the mean of equal numbers need not be that number
    advantages = group_advantages(returns, scale=scale, baseline=baseline)
    assert (advantages[0] == 0).all()
    assert (advantages[1] != 0).any()


def test_leave_one_out_is_the_return_less_the_mean_of_the_others():
    returns = torch.randn(3, 5, dtype=torch.float64)
    advantages = group_advantages(returns, baseline="leave_one_out")
    for row in range(3):
        for index in range(5):
            others = [float(returns[row, other]) for other in range(5) if other != index]
            assert float(advantages[row, index]) == pytest.approx(float(returns[row, index]) - statistics.mean(others))


@pytest.mark.parametrize(
    ("returns", "options", "message"),
    [
        (torch.zeros(6), {}, r"returns must have the shape \[num_groups, G\], got \(6,\)"),
        (torch.zeros(6, 1), {"baseline": "leave_one_out"}, "at least 2 trajectories for baseline leave_one_out"),
        (torch.zeros(6, 1), {"scale": "group"}, "at least 2 trajectories for baseline mean and scale group, got 1"),
        (torch.zeros(6, 2), {"scale": "std"}, "scale must be one of none, group, batch, got 'std'"),
        (torch.zeros(6, 2), {"baseline": "alive"}, "baseline must be one of mean, leave_one_out, got 'alive'"),
    ],
)
def test_group_advantages_say_what_is_wrong(returns, options, message):
    with pytest.raises(ValueError, match=message):
        group_advantages(returns, **options)


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_returns_to_go_and_their_advantages_are_the_reference_numbers(vectors, padded, discount):
    data = vectors("grpo_advantages")[f"returns_to_go_gamma{discount}"]
    rewards, mask = padded(data["rewards"], fill=float("nan"), width=6)
    expected, _ = padded(data["rtg"], width=6)
    torch.testing.assert_close(returns_to_go(rewards, mask, discount=discount), expected, rtol=0, atol=1e-12)
    for baseline in ("alive", "zero_padded"):
        advantages = group_advantages_to_go(rewards, mask, torch.full((4,), 9), discount=discount, baseline=baseline)
        expected, _ = padded(data[f"adv_{baseline}"], width=6)
        torch.testing.assert_close(advantages, expected, rtol=0, atol=1e-12)
    level = group_advantages(returns_to_go(rewards, mask, discount=discount)[:, 0].unsqueeze(0))
    torch.testing.assert_close(level[0], f64(data["trajectory_level_adv"]), rtol=0, atol=1e-12)


def loop_advantages(rewards, lengths, group, discount, baseline, scale):
    """The definition, one number after the other."""
    to_go = [[0.0] * length for length in lengths]
    for row, length in enumerate(lengths):
        for step in reversed(range(length)):
            later = to_go[row][step + 1] if step + 1 < length else 0.0
            to_go[row][step] = float(rewards[row, step]) + discount * later
    advantages = {}
    for row, length in enumerate(lengths):
        members = [other for other in range(len(lengths)) if group[other] == group[row]]
        for step in range(length):
            running = [other for other in members if lengths[other] > step]
            if baseline == "alive":
                value = statistics.mean(to_go[other][step] for other in running)
            elif baseline == "zero_padded":
                value = sum(to_go[other][step] for other in running) / len(members)
            else:
                others = [to_go[other][step] for other in running if other != row]
                value = statistics.mean(others) if others else to_go[row][step]
            advantages[row, step] = to_go[row][step] - value
    scales = dict.fromkeys(set(group), 1.0)
    if scale != "none":
        for each in scales:
            kept = [value for (row, _), value in advantages.items() if scale == "batch" or group[row] == each]
            scales[each] = statistics.stdev(kept) + 1e-4
    result = torch.zeros(rewards.shape, dtype=torch.float64)
    for (row, step), value in advantages.items():
        result[row, step] = value / scales[group[row]]
    return result


@pytest.mark.parametrize("baseline", ["alive", "zero_padded", "leave_one_out"])
@pytest.mark.parametrize("scale", ["none", "group", "batch"])
@pytest.mark.parametrize("discount", [1.0, 0.97, 0.0])
def test_advantages_to_go_are_those_of_plain_loops(baseline, scale, discount):
    lengths, group = [5, 1, 11, 7, 2, 9, 11, 3, 4], [4, 2, 4, 2, 4, 2, 2, 4, 4]  # groups of different sizes
    rewards = torch.randn(9, 11, dtype=torch.float64) + 3
    mask = torch.arange(11) < torch.tensor(lengths).unsqueeze(-1)
    expected = loop_advantages(rewards, lengths, group, discount, baseline, scale)
    rewards[~mask] = torch.nan
    advantages = group_advantages_to_go(
        rewards, mask, torch.tensor(group), discount=discount, baseline=baseline, scale=scale
    )
    torch.testing.assert_close(advantages, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("baseline", ["alive", "zero_padded", "leave_one_out"])
def test_a_group_whose_steps_are_all_equal_has_no_advantage_at_all(baseline):
    rewards, mask = torch.full((7, 5), 0.1), torch.ones(7, 5, dtype=torch.bool)
    advantages = group_advantages_to_go(
        rewards, mask, torch.zeros(7, dtype=torch.int64), discount=0.9, baseline=baseline, scale="group"
    )
    assert (advantages == 0).all()


def test_advantages_to_go_of_the_alive_baseline_add_up_to_zero_at_every_step():
    mask = torch.arange(11) < torch.tensor([5, 1, 11, 7, 2, 9]).unsqueeze(-1)
    group = torch.tensor([0, 1, 0, 1, 0, 1])
    advantages = group_advantages_to_go(torch.randn(6, 11, dtype=torch.float64), mask, group)
    for each in (0, 1):
        sums = advantages[group == each].sum(dim=0)
        torch.testing.assert_close(sums, torch.zeros_like(sums), rtol=0, atol=1e-12)


def test_the_linear_baseline_is_numpys_least_squares():
    lengths = [5, 11, 7, 9]
    mask = torch.arange(11) < torch.tensor(lengths).unsqueeze(-1)
    observation, rewards = torch.randn(4, 11, 2, dtype=torch.float64), torch.randn(4, 11, dtype=torch.float64)
    advantages = group_advantages_to_go(
        rewards, mask, torch.tensor([0, 0, 1, 1]), discount=0.9, baseline="linear", observation=observation
    )
    rows, targets = [], []
    for row, length in enumerate(lengths):
        for step in range(length):
            first, second = observation[row, step].tolist()
            rows.append([1, first, second, first**2, second**2, step, step**2, step**3])
            targets.append(sum(float(rewards[row, at]) * 0.9 ** (at - step) for at in range(step, length)))
    inputs, expected = np.array(rows), np.array(targets)
    fitted = inputs @ np.linalg.lstsq(inputs, expected, rcond=None)[0]
    assert advantages[mask].numpy() == pytest.approx(expected - fitted, abs=1e-2)  # there is a small penalty
    assert (advantages[~mask] == 0).all()


def test_the_linear_baseline_reads_the_time_since_the_reset():
    """Trajectories that begin in the middle of an episode: the return depends on the steps since the reset alone."""
    firsts, mask = torch.tensor([0, 5, 2, 7]), torch.arange(6) < torch.tensor([6, 4, 5, 3]).unsqueeze(-1)
    count = firsts.unsqueeze(-1) + torch.arange(6)
    returns, nothing = 3.0 - 0.5 * count + 0.1 * count**2, torch.zeros(4, 6, 1)
    fitted = linear_baseline(returns, mask, nothing, count)
    torch.testing.assert_close(fitted[mask], returns[mask], rtol=0, atol=1e-2)
    assert (linear_baseline(returns, mask, nothing) - returns)[mask].abs().max() > 0.5  # columns do not tell it
    plain = torch.arange(6).expand(4, 6)
    expected = linear_baseline(returns, mask, nothing)
    torch.testing.assert_close(linear_baseline(returns, mask, nothing, plain), expected, rtol=0, atol=1e-5)


def test_a_step_count_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"step_count must have the shape of the mask \(4, 5\), got \(4, 1\)"):
        linear_baseline(torch.zeros(4, 5), torch.ones(4, 5, dtype=torch.bool), torch.zeros(4, 5, 2), torch.zeros(4, 1))


def test_the_linear_baseline_knows_what_only_the_state_tells():
    mask = torch.ones(64, 8, dtype=torch.bool)
    observation = torch.randn(64, 8, 3)
    returns = 2 + observation[..., 0] - 3 * observation[..., 1].square()
    torch.testing.assert_close(linear_baseline(returns, mask, observation), returns, rtol=0, atol=1e-3)
    constant = torch.ones(64, 8, 1)  # nothing to tell states apart by: the mean
    noise = torch.randn(64, 8)
    noise = noise - noise.mean(dim=0)
    fitted = linear_baseline(noise, mask, constant)
    torch.testing.assert_close(fitted, torch.zeros_like(fitted), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("observation", "message"),
    [(None, "baseline linear needs the observation of each step"), (torch.zeros(4, 3, 2), r"shape \(4, 5, '...'\)")],
)
def test_the_linear_baseline_says_what_is_missing(observation, message):
    with pytest.raises(ValueError, match=message):
        group_advantages_to_go(
            torch.zeros(4, 5),
            torch.ones(4, 5, dtype=torch.bool),
            torch.zeros(4, dtype=torch.int64),
            baseline="linear",
            observation=observation,
        )


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((4, 5), (4, 5), (5,)), {}, r"group \[P\], got \(4, 5\), \(4, 5\) and \(5,\)"),
        (((4, 5, 1), (4, 5), (4,)), {}, r"rewards and mask must have the shape \[P, T\]"),
        (((4, 5), (4, 5), (4,)), {"baseline": "mean"}, "baseline must be one of alive, zero_padded, leave_one_out"),
        (((4, 5), (4, 5), (4,)), {"scale": "std"}, "scale must be one of none, group, batch"),
    ],
)
def test_advantages_to_go_say_what_is_wrong(shapes, options, message):
    rewards, mask, group = (torch.ones(shape) for shape in shapes)
    with pytest.raises(ValueError, match=message):
        group_advantages_to_go(rewards, mask.bool(), group.long(), **options)


def test_every_trajectory_has_a_place_in_the_table_of_groups():
    row, column, member = group_places(torch.tensor([8, -2, 8, 5, 8, -2]))
    assert row.tolist() == [2, 0, 2, 1, 2, 0]
    assert column.tolist() == [0, 0, 1, 0, 2, 1]
    assert member.tolist() == [[True, True, False], [True, False, False], [True, True, True]]
