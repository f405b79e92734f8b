"""The replay buffer keeps the newest transitions, each at its place, through the ring and through the disk."""

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer

from tesserl_iqn import PrioritizedSampler
from tesserl_trainer.run.replay import Replay
from tesserl_trainer.run.segments import Segments


def make(tmp_path, capacity=7, prioritized=False) -> Replay:
    options = {"sampler": PrioritizedSampler(capacity), "priority_key": "td_error"} if prioritized else {}
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(capacity), **options)
    return Replay(buffer, capacity, Segments(tmp_path, size=4), prioritized=prioritized)


def numbered(start: int, stop: int) -> TensorDict:
    return TensorDict({"observation": torch.arange(start, stop)}, [stop - start])


def content(replay: Replay) -> list[int]:
    return replay.buffer.storage.get(torch.arange(len(replay)))["observation"].tolist()


@pytest.mark.parametrize("sizes", [[3, 3, 3, 3], [1] * 12, [12], [5, 0, 7]])
def test_the_newest_transitions_stay_each_at_its_number_modulo_the_capacity(tmp_path, sizes):
    replay, start = make(tmp_path), 0
    for size in sizes:
        replay.extend(numbered(start, start + size))
        start += size
    assert (len(replay), replay.total) == (7, 12)
    assert content(replay) == [7, 8, 9, 10, 11, 5, 6]


def test_what_is_read_from_disk_lies_where_it_lay(tmp_path):
    replay = make(tmp_path, prioritized=True)
    for start in range(0, 12, 3):
        replay.extend(numbered(start, start + 3))
    batch = next(replay.batches(1, 5))
    batch["td_error"] = torch.arange(5.0)
    replay.update_priority(batch)
    again = make(tmp_path, prioritized=True)
    again.load(replay.state_dict(), replay.write())
    assert content(again) == content(replay)
    assert again.total == replay.total
    draws = []
    for buffer in (replay, again):
        torch.manual_seed(1)
        draws.append(next(buffer.batches(1, 50))["observation"].tolist())
        buffer.extend(numbered(12, 13))
    assert draws[0] == draws[1]
    assert content(again) == content(replay) == [7, 8, 9, 10, 11, 12, 6]


def test_new_transitions_get_the_largest_priority(tmp_path):
    replay = make(tmp_path, prioritized=True)
    replay.extend(numbered(0, 4))
    batch = TensorDict({"index": torch.arange(4), "td_error": torch.tensor([1e-9, 1e-9, 1e-9, 100.0])}, [4])
    replay.update_priority(batch)
    replay.extend(numbered(4, 5))
    torch.manual_seed(0)
    seen = next(replay.batches(1, 400))["observation"]
    assert int((seen == 4).sum()) == pytest.approx(200, abs=5)


def test_uniform_batches_cover_the_buffer_and_have_the_size_that_was_asked_for(tmp_path):
    replay = make(tmp_path)
    replay.extend(numbered(0, 5))
    batches = list(replay.batches(3, 20))
    assert [len(batch) for batch in batches] == [20, 20, 20]
    assert set(torch.cat([batch["observation"] for batch in batches]).tolist()) == set(range(5))
    assert list(replay.batches(0, 20)) == []
