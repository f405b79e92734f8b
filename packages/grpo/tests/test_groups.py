"""Assembling, checking and scoring groups of trajectories."""

import pytest
import torch
from tensordict import TensorDict

from tesserl_grpo import (
    check_shared_start,
    flatten_steps,
    group_advantages,
    group_advantages_to_go,
    pad_trajectories,
    score_groups,
)
from tesserl_grpo.groups import bootstrap_cut

LENGTHS, GROUP = [3, 5, 2, 4, 1, 5], [7, 3, 7, 3, 7, 3]


def trajectory(length, start=0.0, terminated=True):
    ends = torch.zeros(length, 1, dtype=torch.bool)
    ends[-1] = True
    return TensorDict(
        {
            "observation": start + torch.arange(length * 2.0).view(length, 2),
            "pixels": torch.full((length, 1, 2, 3), length, dtype=torch.uint8),
            "action": torch.arange(length),
            "next": {
                "reward": torch.arange(1.0, length + 1).unsqueeze(-1),
                "terminated": ends & terminated,
                "truncated": ends & (not terminated),
            },
        },
        [length],
    )


def trajectories(lengths=LENGTHS, cut=()):
    return [trajectory(length, terminated=index not in cut) for index, length in enumerate(lengths)]


def total(length):
    return length * (length + 1) / 2


def test_padding_keeps_every_step_and_marks_them():
    rows = trajectories()
    batch = pad_trajectories(rows, GROUP)
    assert batch.batch_size == (6,)
    assert batch["mask"].sum(dim=-1).tolist() == LENGTHS
    assert batch["group"].tolist() == GROUP
    assert batch["pixels"].shape == (6, 5, 1, 2, 3)
    assert batch["pixels"].dtype == torch.uint8
    for index, row in enumerate(rows):
        for key in ("observation", "pixels", "action", ("next", "reward"), ("next", "terminated")):
            assert torch.equal(batch[key][index, : LENGTHS[index]], row[key])
            assert (batch[key][index, LENGTHS[index] :] == 0).all()


def test_only_the_keys_that_are_asked_for_are_padded():
    batch = pad_trajectories(trajectories(), torch.tensor(GROUP), keys=["action", ("next", "reward")])
    assert sorted(map(str, batch.keys(True, True))) == ["('next', 'reward')", "action", "group", "mask"]


def test_flattening_takes_the_valid_steps_in_order():
    rows = trajectories()
    flat = flatten_steps(pad_trajectories(rows, GROUP))
    assert flat.batch_size == (20,)
    together = torch.cat(rows)
    for key in ("observation", "pixels", "action", ("next", "reward")):
        assert torch.equal(flat[key], together[key])
    assert flat["group"].tolist() == [each for each, length in zip(GROUP, LENGTHS, strict=True) for _ in range(length)]
    assert "mask" not in flat
    assert sorted(flatten_steps(pad_trajectories(rows, GROUP), keys=["action"]).keys()) == ["action"]


@pytest.mark.parametrize(
    ("rows", "group", "message"),
    [
        ([], [], r"at least one trajectory and one step in each, got the lengths \[\]"),
        ([trajectory(2)[:0]], [0], r"got the lengths \[0\]"),
        ([trajectory(2), trajectory(3)], [0], "group must say one number for each of 2 trajectories, got 1"),
    ],
)
def test_trajectories_that_cannot_be_padded_are_refused(rows, group, message):
    with pytest.raises(ValueError, match=message):
        pad_trajectories(rows, group)


def test_groups_that_share_their_starts_pass():
    starts = torch.tensor([[0.5], [1.0], [0.5], [1.0]])
    group = torch.tensor([4, 9, 4, 9])
    check_shared_start(starts, group)
    check_shared_start((starts * 100).to(torch.uint8), group, name="pixels")
    check_shared_start(starts + torch.tensor([[0.0], [0.0], [1e-7], [0.0]]), group, tolerance=1e-6)


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (
            torch.tensor([[0.5, 0.1], [1.0, 0.2], [0.5, 0.1], [1.0, -0.3]]),
            r"first observation: in group 9 that of trajectory 1 \(row 3\) is up to 0.5 away from that of trajectory 0 "
            r"\(row 1\), more than 0; reset every slot of a group with one seed",
        ),
        (torch.tensor([[255], [0], [0], [0]], dtype=torch.uint8), r"in group 4 that of trajectory 1 \(row 2\) .* 255"),
        (torch.tensor([[0.0], [0.0], [torch.nan], [0.0]]), r"in group 4 that of trajectory 1 \(row 2\) .* nan away"),
    ],
)
def test_different_starts_in_one_group_are_refused(observation, message):
    with pytest.raises(ValueError, match=message):
        check_shared_start(observation, torch.tensor([4, 9, 4, 9]))


def test_scores_are_the_advantages_of_the_returns():
    batch = pad_trajectories(trajectories(), GROUP)
    scored = score_groups(batch, scale="group")
    returns = torch.tensor([[total(5), total(4), total(5)], [total(3), total(2), total(1)]])
    expected = group_advantages(returns, scale="group").T.flip(1).reshape(-1)  # 7, 3, 7, 3, 7, 3
    advantage = scored.batch["advantage"]
    assert advantage.shape == (6, 5, 1)
    torch.testing.assert_close(advantage[:, 0, 0], expected)
    mask = batch["mask"]
    assert torch.equal(advantage.squeeze(-1), torch.where(mask, advantage[:, :1, 0], 0.0))
    assert "advantage" not in batch
    assert scored.zero_variance_groups.tolist() == []
    metrics = scored.metrics
    assert metrics["reward"] == pytest.approx(float(returns.mean()))
    assert metrics["reward_std"] == pytest.approx(float(returns.std(dim=-1).mean()))
    assert metrics["frac_reward_zero_std"] == 0
    assert [metrics[f"completions/{name}_length"] for name in ("mean", "min", "max")] == [pytest.approx(20 / 6), 1, 5]
    assert metrics["completions/clipped_ratio"] == 0


def test_scores_to_go_are_the_advantages_to_go():
    batch = pad_trajectories(trajectories(), GROUP)
    options = {"discount": 0.9, "baseline": "zero_padded", "scale": "batch"}
    scored = score_groups(batch, credit="to_go", **options)
    rewards, mask = batch["next", "reward"].squeeze(-1), batch["mask"]
    expected = group_advantages_to_go(rewards, mask, torch.tensor(GROUP), **options)
    torch.testing.assert_close(scored.batch["advantage"].squeeze(-1), expected)


def test_torchrls_padded_trajectories_are_scored_alike():
    ours = score_groups(pad_trajectories(trajectories(), GROUP)).batch
    theirs = pad_trajectories(trajectories(), GROUP)
    group, mask = theirs.pop("group"), theirs.pop("mask")
    theirs.batch_size = mask.shape
    theirs["group"] = group.unsqueeze(-1).expand(mask.shape).unsqueeze(-1)
    theirs["collector", "mask"] = mask
    scored = score_groups(theirs).batch
    assert scored.batch_size == mask.shape
    torch.testing.assert_close(scored["advantage"], ours["advantage"])
    torch.testing.assert_close(flatten_steps(scored)["advantage"], flatten_steps(ours)["advantage"])


@pytest.mark.parametrize("credit", ["trajectory", "to_go"])
@pytest.mark.parametrize("zero_variance", ["keep", "drop", "resample"])
def test_groups_without_variance_are_counted_and_dropped_or_kept(credit, zero_variance):
    batch = pad_trajectories(trajectories([4, 3, 4, 5, 4, 2, 2, 2, 2]), [8, 3, 8, 3, 8, 3, -1, -1, -1])
    scored = score_groups(batch, credit=credit, zero_variance=zero_variance)
    assert sorted(scored.zero_variance_groups.tolist()) == [-1, 8]
    assert scored.metrics["frac_reward_zero_std"] == pytest.approx(2 / 3)
    expected = [8, 3, 8, 3, 8, 3, -1, -1, -1] if zero_variance == "keep" else [3, 3, 3]
    assert scored.batch["group"].tolist() == expected
    is_flat = scored.batch["group"] != 3
    assert (scored.batch["advantage"][is_flat] == 0).all()
    assert (scored.batch["advantage"][~is_flat] != 0).any()


def test_rewards_at_other_times_are_a_difference_to_go_and_none_over_the_trajectory():
    early, late = trajectory(3), trajectory(3)
    early["next", "reward"], late["next", "reward"] = torch.tensor([[[1.0], [0], [0]], [[0], [0], [1.0]]])
    batch = pad_trajectories([early, late], [0, 0])
    assert score_groups(batch).zero_variance_groups.tolist() == [0]
    assert score_groups(batch, credit="to_go").zero_variance_groups.tolist() == []


def test_a_batch_may_be_dropped_as_a_whole():
    scored = score_groups(pad_trajectories(trajectories([2, 2]), [5, 5]), zero_variance="drop")
    assert len(scored.batch) == 0
    assert len(flatten_steps(scored.batch)) == 0


def test_trajectories_that_were_cut_are_kept_masked_or_bootstrapped():
    batch = pad_trajectories(trajectories([3, 5, 2, 4], cut=(1, 2)), [0, 0, 1, 1])
    sums = torch.tensor([[total(3), total(5)], [total(2), total(4)]])
    kept = score_groups(batch)
    torch.testing.assert_close(kept.batch["advantage"][:, 0, 0], group_advantages(sums).flatten())
    assert torch.equal(kept.batch["mask"], batch["mask"])
    assert kept.metrics["completions/clipped_ratio"] == 0.5

    masked = score_groups(batch, truncation="mask").batch
    torch.testing.assert_close(masked["advantage"], kept.batch["advantage"])  # still in the baseline
    assert masked["mask"].sum(dim=-1).tolist() == [3, 0, 0, 4]

    next_value = torch.tensor([100.0, 10.0, 20.0, torch.nan])  # of the other two it is not read
    more = score_groups(batch, truncation="bootstrap", next_value=next_value, discount=0.5).batch
    rewards, mask = batch["next", "reward"].squeeze(-1).clone(), batch["mask"]
    rewards[1, 4] += 0.5 * 10
    rewards[2, 1] += 0.5 * 20
    returns = (torch.where(mask, rewards, 0) * 0.5 ** torch.arange(5)).sum(dim=-1).view(2, 2)
    torch.testing.assert_close(more["advantage"][:, 0, 0], group_advantages(returns).flatten())
    to_go = score_groups(batch, credit="to_go", truncation="bootstrap", next_value=next_value, discount=0.5).batch
    expected = group_advantages_to_go(rewards, mask, torch.tensor([0, 0, 1, 1]), discount=0.5)
    torch.testing.assert_close(to_go["advantage"].squeeze(-1), expected)


@pytest.mark.parametrize("credit", ["trajectory", "to_go"])
def test_padding_moves_no_score(credit):
    batch = pad_trajectories(trajectories([3, 5, 2, 4], cut=(1, 2)), [0, 0, 1, 1])
    expected = score_groups(batch, credit=credit, scale="group")
    batch["next", "reward"][~batch["mask"]] = torch.nan
    batch["next", "terminated"][~batch["mask"]] = True
    found = score_groups(batch, credit=credit, scale="group")
    torch.testing.assert_close(found.batch["advantage"], expected.batch["advantage"])
    assert found.metrics == expected.metrics


def test_bootstrapping_adds_to_the_last_reward_of_the_cut_only():
    mask = torch.tensor([[True, True, False], [True, True, True]])
    rewards = bootstrap_cut(torch.ones(2, 3), mask, torch.tensor([True, False]), torch.tensor([4.0, 4.0]), discount=0.5)
    assert rewards.tolist() == [[1, 3, 1], [1, 1, 1]]


@pytest.mark.parametrize(
    ("group", "options", "error", "message"),
    [
        ([0, 0, 1, 1], {"credit": "step"}, ValueError, "credit must be one of trajectory, to_go, got 'step'"),
        ([0, 0, 1, 1], {"zero_variance": "no"}, ValueError, "zero_variance must be one of keep, drop, resample"),
        ([0, 0, 1, 1], {"truncation": "no"}, ValueError, "truncation must be one of keep, mask, bootstrap"),
        ([0, 0, 1, 1], {"truncation": "bootstrap"}, ValueError, "truncation bootstrap needs next_value, .* got None"),
        ([0, 0, 0, 6], {}, ValueError, "groups must be of one size, got 1 trajectories in group 6 and 3 in another"),
        ([0, 0, 1, 1], {"baseline": "alive"}, ValueError, "baseline must be one of mean, leave_one_out, got 'alive'"),
    ],
)
def test_groups_that_cannot_be_scored_are_refused(group, options, error, message):
    with pytest.raises(error, match=message):
        score_groups(pad_trajectories(trajectories([2, 3, 4, 5]), group), **options)


@pytest.mark.parametrize("key", ["mask", "group", ("next", "reward"), ("next", "terminated")])
def test_a_missing_key_is_named(key):
    batch = pad_trajectories(trajectories([2, 3]), [0, 0]).exclude(key)
    with pytest.raises(KeyError, match="expected the key"):
        score_groups(batch)


def test_rewards_of_another_shape_are_refused():
    batch = pad_trajectories(trajectories([2, 3]), [0, 0])
    batch["next", "reward"] = torch.zeros(2, 3, 2)
    with pytest.raises(ValueError, match=r"must have the shape \(2, 3, 1\) of the mask, got \(2, 3, 2\)"):
        score_groups(batch)


def test_scores_use_the_step_count_of_the_batch():
    rows = trajectories()
    for first, row in enumerate(rows):
        row["step_count"] = torch.arange(first, first + len(row)).unsqueeze(-1)
    batch = pad_trajectories(rows, GROUP)
    scored = score_groups(batch, credit="to_go", baseline="linear", step_count="step_count").batch["advantage"]
    expected = group_advantages_to_go(
        batch["next", "reward"].squeeze(-1),
        batch["mask"],
        batch["group"],
        baseline="linear",
        observation=batch["observation"],
        step_count=batch["step_count"].squeeze(-1),
    )
    assert torch.equal(scored.squeeze(-1), expected)
    without = score_groups(batch, credit="to_go", baseline="linear").batch["advantage"]
    assert not torch.allclose(scored, without, atol=1e-3)
