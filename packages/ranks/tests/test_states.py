"""The state of several ranks in one checkpoint, and minibatches."""

import pytest
import torch
from tensordict import TensorDict

from tesserl_ranks import ALONE, Ranks, count_minibatches, minibatches, shared_minibatches, slices, state_of_all
from tesserl_ranks.states import digest_of, state_of_rank
from tesserl_storage import StorageError


class Recorded(Ranks):
    """One of two ranks; ``gather`` returns what the other one sent, or twice the same."""

    def __init__(self, rank, others=None):
        super().__init__(rank, 2)
        self.others, self.sent = None if others is None else list(others), []

    def gather(self, value):
        self.sent.append(value)
        other = value if self.others is None else self.others.pop(0)
        return [other, value] if self.rank else [value, other]


def state(rank):
    networks = {"weight": torch.ones(3), "layer.epsilon_in": torch.full((2,), float(rank))}
    own = {"window": [rank]} if rank else {"first": 1}
    place = {"here": torch.tensor(rank), "there": {}}
    return {"networks": networks, "optimizer": {"lr": 0.1}, "step": 4, "place": place, **own}


def test_each_rank_gets_its_own_state_back():
    alone = Recorded(0)
    state_of_all(alone, state(0), 4)  # what rank 0 sends does not depend on the others
    second = Recorded(1, alone.sent)
    state_of_all(second, state(1), 4)
    whole = state_of_all(Recorded(0, second.sent), state(0), 4)
    assert whole["ranks"]["number"] == 2
    for rank in (0, 1):
        restored = state_of_rank(Ranks(rank, 2), whole, "checkpoint")
        assert digest_of(restored) == digest_of(state(rank))


def test_another_number_of_ranks_is_refused_with_a_remedy():
    saved = {"ranks": {"number": 2, "generator": torch.zeros(0, dtype=torch.uint8), "others": [{}]}}
    message = "here: 2 ranks wrote it and one process cannot continue it exactly; start it with 2 ranks: torchrun"
    with pytest.raises(StorageError, match=message):
        state_of_rank(ALONE, saved, "here")
    with pytest.raises(StorageError, match=r"one process wrote it and 2 ranks cannot .* exactly; as you like: 1$"):
        state_of_rank(Ranks(0, 2), {}, "here", remedy=lambda number: f"as you like: {number}")
    assert state_of_rank(ALONE, {"step": 1}, "here") == {"step": 1}
    assert state_of_all(ALONE, {"step": 1}, 1) == {"step": 1}


@pytest.mark.parametrize(("size", "number", "parts"), [(12, 3, 3), (7, 5, 4), (2, 5, 2), (0, 3, 0), (5, 1, 1)])
def test_minibatches_are_a_partition(size, number, parts):
    data = TensorDict({"row": torch.arange(size)}, [size])
    for found in (
        list(minibatches(data, number)),
        [part for part, weight in shared_minibatches(ALONE, data, number) if weight == 1.0],
        [part for part, weight in slices(ALONE, data, number) if weight == 1.0],
    ):
        assert len(found) == parts == count_minibatches(size, number)
        assert sorted(row for part in found for row in part["row"].tolist()) == list(range(size))


def test_one_rank_needs_no_process_group():
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.ones(2)
    metrics = ALONE.reduce([parameter], {"loss": torch.tensor(3.0)}, 5.0)
    assert metrics == {"loss": torch.tensor(3.0)}
    assert parameter.grad.tolist() == [1.0, 1.0]
    assert (ALONE.total(3), ALONE.largest(3), ALONE.some(False), ALONE.gather("a")) == (3, 3, False, ["a"])
    with pytest.raises(RuntimeError, match="one rank has no store"):
        _ = ALONE.store
