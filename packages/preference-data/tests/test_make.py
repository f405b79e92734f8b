"""Pairs from trajectories: what is cut, scored, drawn and labelled."""

import pytest
import torch
from tensordict import TensorDict

from tesserl_preference_data import (
    ScriptedTeacher,
    cut_segments,
    make_pairs,
    rank_pairs,
    score_first_steps,
    segment_scores,
)
from tesserl_preference_data import make as make_module


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def trajectory(rewards, first=0, start=0.0):
    """An episode with these rewards, whose observations are the start and a running number."""
    number = torch.arange(first, first + len(rewards), dtype=torch.float32)
    observation = torch.stack([torch.full_like(number, start), number], dim=1)
    observation[0, 1] = start
    following = {"reward": torch.tensor(rewards).reshape(-1, 1)}
    return TensorDict(
        {"observation": observation, "action": number.long() % 3, "frame": number.int(), "next": following},
        [len(rewards)],
    )


def test_whole_trajectories_are_segments_with_their_rewards():
    pool = cut_segments([trajectory([1.0, 2.0]), trajectory([3.0], first=10)])
    assert pool.length.tolist() == [2, 1]
    assert pool.keys == ["action", "observation", "reward"]
    assert pool.segment(0)["reward"].tolist() == [[1.0], [2.0]]
    assert segment_scores(pool).tolist() == [3.0, 3.0]
    assert segment_scores(pool, discount=0.5).tolist() == [2.0, 3.0]


def test_equal_segments_follow_one_another_inside_a_trajectory(make_trajectories):
    rows = [trajectory([0.0] * length, first=100 * number) for number, length in enumerate((20, 7, 23))]
    pool = cut_segments(rows, segment_length=8, generator=seeded())
    assert pool.length.tolist() == [8] * 4  # two of 20, none of 7, two of 23
    numbers = [pool.segment(i)["action"].tolist() for i in range(4)]
    frames = [
        cut_segments(rows, segment_length=8, extra_keys=["frame"], generator=seeded()).segment(i) for i in range(4)
    ]
    starts = [int(each["extra", "frame"][0]) for each in frames]
    assert starts[1] == starts[0] + 8
    assert 0 <= starts[0] <= 4
    assert 200 <= starts[2] <= 207
    for own, start in zip(numbers, starts, strict=True):
        assert own == [step % 3 for step in range(start, start + 8)]


def test_where_to_cut_is_drawn():
    rows = [trajectory([0.0] * 30)] * 30
    starts = {
        int(cut_segments(rows, segment_length=25, generator=seeded(seed)).segment(3)["action"][0]) for seed in range(9)
    }
    assert len(starts) > 1


def test_segments_of_drawn_lengths_stay_within_their_bounds():
    pool = cut_segments([trajectory([0.0] * 200)] * 5, segment_length=(3, 9), generator=seeded())
    assert set(pool.length.tolist()) == set(range(3, 10))


def test_score_and_comparison_cover_the_same_steps():
    # the first steps are worth a lot and are cut away: what counts is what is compared
    rows = [trajectory([100.0, 0.0, 0.0, 0.0]), trajectory([0.0, 0.0, 1.0, 0.0])]
    for seed in range(20):
        pool = cut_segments(rows, segment_length=3, generator=seeded(seed))
        scores = segment_scores(pool)
        for number, score in enumerate(scores.tolist()):
            assert score == pool.segment(number)["reward"].sum().item()
        if scores[0] != scores[1]:
            pairs = make_pairs(pool, num_pairs=1, generator=seeded())
            gap = [pairs[0][side, "reward"].sum().item() for side in ("chosen", "rejected")]
            assert gap[0] > gap[1]
            assert pairs.margin.item() == pytest.approx(gap[0] - gap[1])


def test_a_shaped_score_replaces_the_reward():
    rows = [trajectory([5.0, 5.0]), trajectory([0.0, 1.0])]
    pool = cut_segments(rows, score=lambda row: -row["next", "reward"].squeeze(-1))
    assert segment_scores(pool).tolist() == [-10.0, -1.0]
    pairs = make_pairs(pool)
    assert pairs.chosen_segment.tolist() == [1]
    assert pairs.pool.segment(0)["reward"].tolist() == [[5.0], [5.0]]


def test_segments_are_scored_by_all_that_follows_their_first_step():
    returns_to_go = {4: torch.tensor([4.0, 6.0, 8.0, 8.0]), 2: torch.zeros(2)}  # with a discount of 0.5
    rows = [trajectory([1.0, 2.0, 4.0, 8.0]), trajectory([0.0, 0.0])]
    pool = score_first_steps(
        cut_segments(rows, segment_length=2, score=lambda row: returns_to_go[len(row)], generator=seeded())
    )
    assert segment_scores(pool).tolist() == [4.0, 8.0, 0.0]  # 1 + 1 + 1 + 1, 4 + 4, nothing
    judged = make_pairs(pool, teacher=ScriptedTeacher(), generator=seeded())
    sides = zip(judged.chosen_segment.tolist(), judged.rejected_segment.tolist(), strict=True)
    assert set(sides) == {(1, 0), (1, 2), (0, 2)}


def test_value_targets_are_returns_to_the_end_of_the_trajectory():
    pool = cut_segments([trajectory([1.0, 2.0, 4.0, 8.0])], segment_length=2, value_discount=0.5, generator=seeded())
    assert pool.segment(0)["value_target"].flatten().tolist() == [4.0, 6.0]  # 1 + 1 + 1 + 1, 2 + 2 + 2
    assert pool.segment(1)["value_target"].flatten().tolist() == [8.0, 8.0]


def test_torchrls_padded_trajectories_are_read():
    rows = [trajectory([1.0, 2.0, 3.0]), trajectory([4.0])]
    padded = TensorDict.maybe_dense_stack([rows[0], torch.cat([rows[1], rows[0][:2]])])
    padded["mask"] = torch.tensor([[True, True, True], [True, False, False]])
    pool = cut_segments(padded)
    assert pool.length.tolist() == [3, 1]
    assert segment_scores(pool).tolist() == [6.0, 4.0]


def test_every_pair_is_drawn_once_and_the_better_one_is_chosen(make_trajectories):
    pool = cut_segments(make_trajectories(12))
    scores = segment_scores(pool)
    pairs = make_pairs(pool, generator=seeded())
    assert len(pairs) == 66
    assert (scores[pairs.chosen_segment] > scores[pairs.rejected_segment]).all()
    torch.testing.assert_close(pairs.margin.double(), scores[pairs.chosen_segment] - scores[pairs.rejected_segment])
    unordered = {
        frozenset(pair) for pair in zip(pairs.chosen_segment.tolist(), pairs.rejected_segment.tolist(), strict=True)
    }
    assert len(unordered) == 66
    assert set(pairs.source) == {"score"}


@pytest.mark.parametrize("enumerated", [True, False])
def test_drawing_is_reproducible_keeps_margin_and_group_and_repeats_nothing(enumerated, make_trajectories, monkeypatch):
    if not enumerated:
        monkeypatch.setattr(make_module, "MAX_ENUMERATED", 0)
    group = [number % 4 for number in range(40)]
    pool = cut_segments(make_trajectories(40), group=group)

    def draw(seed):
        return make_pairs(pool, num_pairs=50, min_margin=5.0, generator=seeded(seed))

    pairs = draw(1)
    assert len(pairs) == 50
    assert (pairs.margin >= 5.0).all()
    assert torch.equal(pool.group[pairs.chosen_segment], pool.group[pairs.rejected_segment])
    unordered = {
        frozenset(pair) for pair in zip(pairs.chosen_segment.tolist(), pairs.rejected_segment.tolist(), strict=True)
    }
    assert len(unordered) == 50
    assert torch.equal(draw(1).chosen_segment, pairs.chosen_segment)
    assert not torch.equal(draw(2).chosen_segment, pairs.chosen_segment)


def test_drawing_without_enumeration_reaches_every_pair(make_trajectories, monkeypatch):
    monkeypatch.setattr(make_module, "MAX_ENUMERATED", 0)
    pool = cut_segments(make_trajectories(9), group=[0, 0, 0, 0, 0, 0, 1, 1, 2])  # 15 + 1 + 0 pairs
    pairs = make_pairs(pool, num_pairs=16, generator=seeded())
    assert len(pairs) == 16
    with pytest.raises(ValueError, match="num_pairs must be said for 9 segments: they make too many pairs"):
        make_pairs(pool)


def test_trajectories_of_one_start_are_a_group():
    rows = [trajectory([float(i)], start=float(i % 2)) for i in range(6)]
    pool = cut_segments(rows, group="start")
    assert pool.group.tolist() == [0, 1, 0, 1, 0, 1]
    assert len(make_pairs(pool)) == 6


def test_ties_are_dropped_or_kept():
    rows = [trajectory([1.0, 1.0]), trajectory([2.0]), trajectory([3.0])]
    pool = cut_segments(rows)
    assert make_pairs(pool, generator=seeded()).label.tolist() == [1.0, 1.0]
    kept = make_pairs(pool, ties="keep", generator=seeded())
    assert sorted(kept.label.tolist()) == [0.5, 1.0, 1.0]
    assert kept.margin[kept.label == 0.5].item() == 0.0


def test_equal_lengths_always_tie_where_reward_counts_steps():
    pool = cut_segments([trajectory([1.0] * 30)] * 5, segment_length=10)
    with pytest.raises(
        ValueError, match=r"1 pairs were asked for, 0 can be made of 15 segments .*; all of them tie; keep"
    ):
        make_pairs(pool, num_pairs=1)


def test_a_teacher_judges_drops_and_ties(make_trajectories):
    pool = cut_segments(make_trajectories(40), segment_length=5, generator=seeded())
    scores = segment_scores(pool)
    plain = make_pairs(pool, num_pairs=300, generator=seeded(), teacher=ScriptedTeacher())
    assert len(plain) == 300
    assert (scores[plain.chosen_segment] > scores[plain.rejected_segment]).all()
    assert set(plain.source) == {"teacher"}
    wrong = make_pairs(pool, num_pairs=300, generator=seeded(), teacher=ScriptedTeacher(mistake=1.0))
    assert (wrong.margin < 0).all()
    skipped = make_pairs(pool, num_pairs=300, generator=seeded(), teacher=ScriptedTeacher(skip=0.5))
    assert 0 < len(skipped) < 300
    tied = make_pairs(pool, num_pairs=300, generator=seeded(), teacher=ScriptedTeacher(equal=0.2), ties="keep")
    assert len(tied) == 300
    dropped = make_pairs(pool, num_pairs=300, generator=seeded(), teacher=ScriptedTeacher(equal=0.2))
    assert len(dropped) == int((tied.label == 1).sum()) < 300


def test_pairs_for_a_person_are_unlabelled_and_in_random_order(make_trajectories):
    pool = cut_segments(make_trajectories(30))
    pairs = make_pairs(pool, num_pairs=200, labelled=False, generator=seeded())
    assert pairs.label.isnan().all()
    assert len(pairs.labelled()) == 0
    scores = segment_scores(pool)
    better_first = (scores[pairs.chosen_segment] > scores[pairs.rejected_segment]).float().mean()
    assert 0.35 < better_first < 0.65


def test_ranked_lists_are_all_their_pairs_or_those_of_neighbours():
    pool = cut_segments([trajectory([float(i)]) for i in range(5)])
    pairs = rank_pairs(pool, [[4, 1, 0], [2, 3]])
    assert list(zip(pairs.chosen_segment.tolist(), pairs.rejected_segment.tolist(), strict=True)) == [
        (4, 1), (4, 0), (1, 0), (2, 3)
    ]  # fmt: skip
    neighbours = rank_pairs(pool, [[4, 1, 0], [2, 3]], adjacent=True)
    assert neighbours.chosen_segment.tolist() == [4, 1, 2]
    with pytest.raises(ValueError, match=r"ranking 1 must name a segment once, got \[2, 2\]"):
        rank_pairs(pool, [[0, 1], [2, 2]])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda rows: cut_segments(rows, segment_length=0), "segment_length must be at least 1, .* got 0"),
        (lambda rows: cut_segments(rows, segment_length=(5, 3)), r"the least at most the largest, got \(5, 3\)"),
        (lambda rows: cut_segments(rows, segment_length=90), r"trajectories must have at least 90 steps, got \[3, 4\]"),
        (
            lambda rows: cut_segments(rows, group="map"),
            "group must be a number for each .*, \"start\" or None, got 'map'",
        ),
        (lambda rows: cut_segments(rows, group=[1]), "group must have a number for each of 2 trajectories, got 1"),
        (lambda rows: cut_segments(rows, value_discount=2.0), r"value_discount must be in \[0, 1\], got 2.0"),
        (
            lambda rows: cut_segments([rows[0].exclude("observation")]),
            "observation_keys must be said where there is none",
        ),
        (
            lambda rows: cut_segments([rows[0][:0]]),
            r"a trajectory must have the batch shape \[T\], T at least 1, got \(0,\)",
        ),
        (lambda rows: make_pairs(cut_segments(rows), min_margin=-1.0), "min_margin must be at least 0, got -1.0"),
        (lambda rows: make_pairs(cut_segments(rows), ties="half"), "ties must be drop or keep, got 'half'"),
        (lambda rows: make_pairs(cut_segments(rows), discount=1.5), r"discount must be in \[0, 1\], got 1.5"),
        (
            lambda rows: make_pairs(cut_segments(rows), num_pairs=2),
            "2 pairs were asked for, 1 can be made of 2 segments",
        ),
        (lambda rows: make_pairs(cut_segments([*rows, trajectory([torch.inf])])), "scores must be finite, got inf"),
    ],
)
def test_wrong_arguments_are_named(function, message):
    with pytest.raises(ValueError, match=message):
        function([trajectory([1.0, 2.0, 3.0]), trajectory([1.0, 2.0, 3.0, 5.0])])


def test_a_missing_key_is_named():
    with pytest.raises(KeyError, match=r"expected the key \('next', 'reward'\), the trajectory has"):
        cut_segments([trajectory([1.0]).exclude(("next", "reward"))])
