"""PreferencePairs: what a batch holds, and what is shared instead of copied."""

from itertools import chain

import pytest
import torch
from tensordict import TensorDict

from tesserl_preference_data import PreferencePairs, SegmentBlock, SegmentPool, concatenate


def counting_pool(lengths, *, first=0, dtype=torch.float32):
    """Segments whose observation tells where a step came from."""
    length = torch.tensor(lengths)
    num_steps = int(length.sum())
    steps = TensorDict(
        {"observation": torch.arange(first, first + num_steps, dtype=dtype), "action": torch.zeros(num_steps)},
        [num_steps],
    )
    return SegmentPool([SegmentBlock(steps, length.cumsum(0) - length, length, torch.full_like(length, -1))])


def pairs_of(pool, pairs, **options):
    index = torch.tensor(pairs)
    return PreferencePairs(pool, index[:, 0], index[:, 1], **options)


@pytest.fixture
def pairs():
    """Segments of steps 0-2, 3, 4-7 and 8-9, in three pairs."""
    label, margin = torch.tensor([1.0, 0.5, 1.0]), torch.tensor([2.0, 0.0, 3.0])
    return pairs_of(
        counting_pool([3, 1, 4, 2]), [(0, 1), (2, 0), (3, 2)], label=label, margin=margin, source=["a", "b", "a"]
    )


def steps_of(side):
    return [row["observation"][row["mask"]].tolist() for row in side]


def test_a_batch_holds_the_steps_of_its_segments_padded_by_their_last(pairs):
    batch = pairs[torch.tensor([2, 0])]
    assert batch.batch_size == (2,)
    assert steps_of(batch["chosen"]) == [[8, 9], [0, 1, 2]]
    assert steps_of(batch["rejected"]) == [[4, 5, 6, 7], [3]]
    assert batch["chosen", "observation"].tolist() == [[8, 9, 9, 9], [0, 1, 2, 2]]
    assert batch["label"].tolist() == [1.0, 1.0]
    assert batch["margin"].tolist() == [3.0, 2.0]
    assert set(batch["chosen"].keys()) == {"observation", "action", "mask"}


def test_a_batch_is_as_long_as_its_longest_segment_or_as_asked(pairs):
    assert pairs[0]["chosen"].batch_size == (1, 3)
    wide = pairs.batch(torch.tensor([0]), pad_to=6)
    assert wide["rejected", "observation"].tolist() == [[3] * 6]
    assert wide["rejected", "mask"].sum() == 1
    with pytest.raises(ValueError, match="pad_to must be at least the longest segment 4, got 3"):
        pairs.batch(torch.tensor([1]), pad_to=3)


def test_all_pairs_can_be_looked_at(pairs):
    assert len(pairs) == 3
    assert steps_of(pairs.chosen) == [[0, 1, 2], [4, 5, 6, 7], [8, 9]]
    assert steps_of(pairs.rejected) == [[3], [0, 1, 2], [4, 5, 6, 7]]
    assert pairs.source == ["a", "b", "a"]
    assert steps_of(pairs[1:]["chosen"]) == [[4, 5, 6, 7], [8, 9]]
    assert pairs.pool.segment(2)["observation"].tolist() == [4, 5, 6, 7]


def test_segments_in_several_blocks_are_gathered_as_from_one(pairs):
    split = SegmentPool([*counting_pool([3, 1]).blocks, *counting_pool([4, 2], first=4).blocks])
    other = PreferencePairs(
        split, pairs.chosen_segment, pairs.rejected_segment, label=pairs.label, margin=pairs.margin, source=pairs.source
    )
    for index in (torch.tensor([2, 0, 1]), torch.tensor([1])):
        assert (other[index] == pairs[index]).all()
    assert other.pool.segment(3)["observation"].tolist() == [8, 9]


@pytest.mark.parametrize("lengths", [[3, 1], [2, 2]])
def test_no_segments_are_gathered_with_the_shapes_of_their_entries(lengths):
    one = counting_pool(lengths)
    split = SegmentPool([*one.blocks, *counting_pool([4, 2], first=4).blocks])
    for pool in (one, split):
        batch = pool.gather(torch.zeros(0, dtype=torch.int64))
        assert len(batch) == 0
        for key in pool.keys:
            assert batch[key].shape[2:] == pool.segment(0)[key].shape[1:]


def test_what_is_below_extra_stays_with_the_segment_and_out_of_batches():
    pool = counting_pool([3, 2])
    pool = pool.set(("extra", "frame"), [torch.arange(5)])
    pairs = pairs_of(pool, [(1, 0)])
    assert ("extra", "frame") not in pairs[0]["chosen"].keys(True, True)
    assert pool.segment(1)["extra", "frame"].tolist() == [3, 4]


def test_minibatches_go_once_over_all_pairs_in_a_reproducible_order(make_batch):
    batch = make_batch(num=11)
    pairs = PreferencePairs.from_segments(batch["chosen"], batch["rejected"], margin=torch.arange(11.0))

    def order(**options):
        generator = torch.Generator().manual_seed(5)
        return [each["margin"].int().tolist() for each in pairs.minibatches(4, generator=generator, **options)]

    assert [len(each) for each in order()] == [4, 4, 3]
    flat = list(chain(*order()))
    assert sorted(flat) == list(range(11))
    assert flat != list(range(11))
    assert order() == order()
    assert list(chain(*order(shuffle=False))) == list(range(11))
    assert [len(each) for each in order(drop_last=True)] == [4, 4]
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        next(pairs.minibatches(0))


def test_pairs_of_padded_segments_come_back_as_they_were(make_batch):
    batch = make_batch(lengths=(9, 11), filling=float("nan"))
    pairs = PreferencePairs.from_segments(batch["chosen"], batch["rejected"])
    for side in ("chosen", "rejected"):
        mask = batch[side, "mask"]
        back = pairs[:][side]
        assert torch.equal(back["mask"].sum(1), mask.sum(1))
        for key in ("observation", "action", "reference_log_prob", "value_target"):
            assert torch.equal(back[key][back["mask"]], batch[side, key][mask])
            assert back[key].isfinite().all()  # padding is never garbage
    assert pairs.source == ["file"] * 7
    assert pairs.margin.isnan().all()


def test_holding_out_pairs_splits_them(make_batch):
    batch = make_batch(num=20)
    pairs = PreferencePairs.from_segments(batch["chosen"], batch["rejected"], margin=torch.arange(20.0))
    train, held_out = pairs.split(0.25, generator=torch.Generator().manual_seed(1))
    assert (len(train), len(held_out)) == (15, 5)
    assert sorted([*train.margin.tolist(), *held_out.margin.tolist()]) == list(range(20))
    assert train.pool is pairs.pool
    again = pairs.split(0.25, generator=torch.Generator().manual_seed(1))[1]
    assert torch.equal(again.margin, held_out.margin)
    assert not torch.equal(pairs.split(0.25, generator=torch.Generator().manual_seed(2))[1].margin, held_out.margin)


def test_holding_out_segments_leaves_none_on_both_sides():
    pool = counting_pool([1] * 12)
    every = [(i, j) for i in range(12) for j in range(i)]
    train, held_out = pairs_of(pool, every).split(0.5, by="segment", generator=torch.Generator().manual_seed(0))
    segments = [{*each.chosen_segment.tolist(), *each.rejected_segment.tolist()} for each in (train, held_out)]
    assert not segments[0] & segments[1]
    assert (len(train), len(held_out)) == (15, 15)  # pairs within six and six segments


def test_an_empty_side_of_a_split_is_named():
    pairs = pairs_of(counting_pool([1, 1, 1]), [(0, 1), (1, 2)])
    with pytest.raises(
        ValueError, match=r"there must be pairs on both sides, got .* of 2; make more pairs, or split by"
    ):
        pairs.split(0.5, by="segment", generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"held_out_fraction must be in \(0, 1\), got 1.0"):
        pairs.split(1.0)
    with pytest.raises(ValueError, match="by must be pair or segment, got 'group'"):
        pairs.split(0.5, by="group")


def test_relabelling_swaps_ties_and_forgets(pairs):
    preferred = torch.tensor([1.0, 0.0, 0.5])
    other = pairs.relabel(preferred, source="anna")
    assert steps_of(other.chosen) == [[3], [4, 5, 6, 7], [8, 9]]
    assert steps_of(other.rejected) == [[0, 1, 2], [0, 1, 2], [4, 5, 6, 7]]
    assert other.label.tolist() == [1.0, 1.0, 0.5]
    assert other.margin.tolist() == [-2.0, 0.0, 3.0]
    assert other.source == ["anna"] * 3
    assert pairs.label.tolist() == [1.0, 0.5, 1.0]
    unknown = pairs.relabel(torch.tensor([torch.nan, 0.0, torch.nan]), source="anna")
    assert unknown.label.isnan().tolist() == [True, False, True]
    assert steps_of(unknown.labelled().chosen) == [[4, 5, 6, 7]]
    with pytest.raises(ValueError, match=r"preferred must be 0, 0.5, 1 or NaN for each of 3 pairs, got"):
        pairs.relabel(torch.tensor([0.2, 0.0, 0.0]), source="anna")


def test_concatenated_pairs_share_the_steps_and_let_go_of_what_nobody_uses(pairs):
    more = pairs_of(counting_pool([2, 5], first=100), [(1, 0)])
    both = concatenate([pairs, more])
    assert steps_of(both.chosen) == [*steps_of(pairs.chosen), [102, 103, 104, 105, 106]]
    assert both.source == ["a", "b", "a", "score"]
    assert both.pool.blocks == (*pairs.pool.blocks, *more.pool.blocks)
    again = concatenate([both.select(slice(3, None)), more])
    assert again.pool.blocks == more.pool.blocks
    assert steps_of(again.chosen) == [[102, 103, 104, 105, 106]] * 2
    none = concatenate([pairs.select(slice(0, 0))])
    assert len(none) == 0
    with pytest.raises(ValueError, match="there must be pairs to concatenate, got none"):
        concatenate([])


def test_a_selection_copies_no_step(pairs):
    some = pairs.select(torch.tensor([True, False, True]))
    assert some.pool is pairs.pool
    assert steps_of(some.rejected) == [[3], [4, 5, 6, 7]]
    assert some.source == ["a", "a"]


def test_pairs_move_to_a_device_and_keep_their_place(pairs):
    moved = pairs.to("cpu")
    assert (moved[:] == pairs[:]).all()
    meta = pairs.pool.to("meta")
    assert meta.length.device.type == "meta"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda pool: pairs_of(pool, [(0, 4)]), r"rejected_segment of pair 0 must be in \[0, 4\), got 4"),
        (lambda pool: pairs_of(pool, [(1, 2), (-1, 0)]), r"chosen_segment of pair 1 must be in \[0, 4\), got -1"),
        (lambda pool: pairs_of(pool, [(0, 1)], label=torch.ones(2)), "must have an entry for each of 1 pairs, got"),
        (lambda pool: pairs_of(pool, [(0, 1)], source=["a", "b"]), "one source for each of 1 pairs, got 2"),
        (lambda pool: SegmentPool([]), "a pool must have segments, got none"),
        (
            lambda pool: SegmentPool([*pool.blocks, *counting_pool([1], dtype=torch.int64).blocks]),
            "all segments must have the same keys, dtypes and shapes, got",
        ),
    ],
)
def test_wrong_arguments_are_named(function, message):
    with pytest.raises(ValueError, match=message):
        function(counting_pool([3, 1, 4, 2]))


def test_segments_without_a_valid_step_or_with_other_keys_are_named(make_batch):
    batch = make_batch()
    empty = batch["rejected"].clone()
    empty["mask"][4] = False
    with pytest.raises(ValueError, match="every segment must have a valid step, got none in rejected 4"):
        PreferencePairs.from_segments(batch["chosen"], empty)
    with pytest.raises(ValueError, match="chosen and rejected must have the same keys, got"):
        PreferencePairs.from_segments(batch["chosen"], batch["rejected"].exclude("action"))
