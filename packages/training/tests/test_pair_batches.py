"""Batches of pairs, and the newest pairs."""

import pytest
import torch
from tensordict import TensorDict

from tesserl_preference_data import cut_segments, make_pairs
from tesserl_storage.errors import StorageError
from tesserl_training.pair_batches import Batches, NewestPairs, Shuffled, with_entries


def some_pairs(lengths=(3, 1, 4, 2)):
    """Segments whose every entry is known: observation ``[segment, t]``, action and reward the same sum."""
    rows = []
    for number, length in enumerate(lengths):
        steps = torch.arange(length)
        observation = torch.stack([torch.full_like(steps, number), steps], dim=1).float()
        reward = observation.sum(dim=1, keepdim=True)
        rows.append(
            TensorDict({"observation": observation, "action": steps + number, "next": {"reward": reward}}, [length])
        )
    pool = cut_segments(rows, group=[0, 0, 1, 1])
    return make_pairs(pool, generator=torch.Generator().manual_seed(1))


def test_shuffled_numbers_come_once_each_before_any_comes_again():
    torch.manual_seed(1)
    shuffled = Shuffled(5)
    taken = torch.cat([shuffled.take(3) for _ in range(5)])
    assert [sorted(part.tolist()) for part in taken.split(5)] == [[0, 1, 2, 3, 4]] * 3
    assert len({tuple(part.tolist()) for part in taken.split(5)}) > 1
    assert shuffled.taken == 15


def test_shuffled_numbers_continue_where_they_were():
    shuffled, again = Shuffled(7), Shuffled(7)
    shuffled.take(3)
    again.load_state_dict(shuffled.state_dict())
    assert shuffled.take(4).tolist() == again.take(4).tolist()


def test_a_batch_of_two_sources_holds_both_padded_to_one_length():
    pairs = with_entries(some_pairs(), ["observation", "action"])
    short = pairs.select(pairs.pool.group[pairs.chosen_segment] == 0)
    batch = Batches(["observation", "action"])((short, torch.tensor([0])), (pairs, torch.tensor([0, 1])))
    assert batch.batch_size == (3,)
    assert batch["chosen"].batch_size == batch["rejected"].batch_size == (3, 4)
    for number, source in enumerate([short, pairs, pairs]):
        index = max(number - 1, 0)
        for side, segment in (("chosen", source.chosen_segment), ("rejected", source.rejected_segment)):
            row = batch[side][number]
            assert torch.equal(row["observation"][row["mask"]], source.pool.segment(int(segment[index]))["observation"])


def test_a_ranked_batch_holds_scores_and_groups():
    pairs = with_entries(some_pairs(), ["observation", "action", "score"], score_discount=0.5)
    batch = Batches(["observation", "action", "score"], ranking=True)((pairs, torch.arange(2)))
    segments = torch.cat([pairs.chosen_segment, pairs.rejected_segment]).tolist()
    scores = [0 + 0.5 * 1 + 0.25 * 2, 1.0, 2 + 0.5 * 3 + 0.25 * 4 + 0.125 * 5, 3 + 0.5 * 4]
    assert batch["score"].tolist() == [scores[segment] for segment in segments]
    assert batch["group"].tolist() == [segment // 2 for segment in segments]


def test_returns_reach_to_the_end_of_the_segment():
    pairs = with_entries(some_pairs(), ["observation", "value_target"], value_discount=0.5)
    assert pairs.pool.segment(2)["value_target"].flatten().tolist() == [5.125, 6.25, 6.5, 5.0]
    assert pairs.pool.segment(0)["value_target"].flatten().tolist() == [1.0, 2.0, 2.0]


def test_the_newest_pairs_stay_and_survive_their_state():
    pairs, newest, again = with_entries(some_pairs(), ["observation"]), NewestPairs(3), NewestPairs(3)
    for _ in range(2):
        newest.add(pairs)
    newest.add(pairs.select(slice(0, 0)))
    again.load_state_dict(newest.state_dict())
    for buffer in (newest, again):
        assert len(buffer) == 3
        assert torch.equal(
            buffer.pairs.chosen["observation"], pairs.select(torch.tensor([1, 0, 1])).chosen["observation"]
        )
    assert torch.equal(again.pairs[:]["rejected"]["observation"], newest.pairs[:]["rejected"]["observation"])
    assert again.pairs.source == newest.pairs.source


@pytest.mark.parametrize("order", [[], [0], [0, 0, 1], [0, 1, 3], [0, 1, 2, 3]])
def test_an_order_that_is_none_cannot_make_a_resume_hang(order):
    shuffled = Shuffled(3)
    with pytest.raises(StorageError, match="order: expected each number below 3 once"):
        shuffled.load_state_dict({"order": torch.tensor(order, dtype=torch.int64), "taken": 4})


def test_an_order_continues_where_it_was():
    shuffled = Shuffled(5)
    for taken in (0, 3, 5, 7):
        shuffled.take(taken - shuffled.taken)
        again = Shuffled(5)
        again.load_state_dict(shuffled.state_dict())
        torch.manual_seed(1)
        expected = again.take(9).tolist()
        third = Shuffled(5)
        third.load_state_dict(shuffled.state_dict())
        torch.manual_seed(1)
        assert third.take(9).tolist() == expected


def test_saved_pairs_of_segments_that_are_not_there_are_refused():
    one = torch.ones(2)
    state = {
        "steps": {"observation": torch.zeros(4, 2)},
        "length": torch.tensor([2, 2]),
        "group": torch.tensor([0, 0]),
        "chosen": torch.tensor([0, 1]),
        "rejected": torch.tensor([1, 2]),
        "label": one,
        "margin": one,
        "source": ["score", "score"],
    }
    with pytest.raises(StorageError, match="pairs: expected segments below 2, got 2"):
        NewestPairs(4).load_state_dict(state)
    with pytest.raises(StorageError, match="expected 4 steps, got others of observation"):
        NewestPairs(4).load_state_dict(state | {"rejected": torch.tensor([1, 0]), "steps": {"observation": one}})
    with pytest.raises(StorageError, match="expected 1 to 1 pairs"):
        NewestPairs(1).load_state_dict(state)
