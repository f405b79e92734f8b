"""The replay buffer keeps the newest transitions, each at its place, through the ring and through the disk."""

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer

from tesserl_replay import FrameStorage, PrioritizedSampler
from tesserl_training.replay import Replay
from tesserl_training.replay_segments import Segments


def make(tmp_path, capacity=7, prioritized=False, test_fraction=0.0) -> Replay:
    options = {"sampler": PrioritizedSampler(capacity), "priority_key": "td_error"} if prioritized else {}
    if test_fraction and not prioritized:
        options = {"sampler": PrioritizedSampler(capacity, alpha=0.0)}
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(capacity), **options)
    return Replay(buffer, capacity, Segments(tmp_path, size=4), prioritized=prioritized, test_fraction=test_fraction)


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


@pytest.mark.parametrize("prioritized", [False, True])
def test_a_part_of_the_transitions_is_tested_and_never_learnt_from(tmp_path, prioritized):
    replay, learnt = make(tmp_path, 1000, prioritized, 0.25), []
    for start in range(0, 1500, 30):
        learnt.append(replay.extend(numbered(start, start + 30)))
    assert sum(learnt) == pytest.approx(0.75 * 1500, abs=60)
    trained = set(torch.cat([batch["observation"] for batch in replay.batches(20, 500)]).tolist())
    before = torch.get_rng_state()
    tested = set(torch.cat([replay.test_batch(500, seed)["observation"] for seed in range(20)]).tolist())
    assert torch.equal(torch.get_rng_state(), before)
    assert not trained & tested
    assert trained | tested == set(range(500, 1500))
    assert torch.equal(replay.test_batch(9, 1)["observation"], replay.test_batch(9, 1)["observation"])
    again = make(tmp_path, 1000, prioritized, 0.25)
    again.load(replay.state_dict(), replay.write())
    assert set(torch.cat([batch["observation"] for batch in again.batches(9, 500)]).tolist()) <= trained
    assert set(again.test_batch(500, 3)["observation"].tolist()) <= tested


def test_which_ones_are_tested_does_not_depend_on_how_they_came(tmp_path):
    tested = []
    for sizes in ([100], [1] * 100):
        replay, start = make(tmp_path, 40, test_fraction=0.3), 0
        for size in sizes:
            replay.extend(numbered(start, start + size))
            start += size
        tested.append(sorted(set(replay.test_batch(500, 0)["observation"].tolist())))
    assert tested[0] == tested[1]


def test_nothing_is_tested_unless_asked_for(tmp_path):
    replay = make(tmp_path)
    assert replay.extend(numbered(0, 9)) == 9
    assert replay.test_batch(3, 0) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_go_to_the_device(tmp_path):
    buffer = TensorDictReplayBuffer(storage=FrameStorage(8, num_frames=1, pin_memory=True))
    replay = Replay(buffer, 8, Segments(tmp_path, size=4), prioritized=False, device="cuda")
    pixels = torch.arange(6, dtype=torch.uint8).reshape(6, 1, 1, 1).expand(6, 1, 3, 5)
    replay.extend(TensorDict({"pixels": pixels, "number": torch.arange(6), "next": {"pixels": pixels + 1}}, [6]))
    for batch in replay.batches(3, 50):
        assert batch["pixels"].device.type == "cuda"
        assert (batch["pixels"].long().amax((1, 2, 3)) == batch["number"]).all()
        assert (batch["next", "pixels"].long() == batch["pixels"].long() + 1).all()


def test_transitions_that_are_only_for_measuring_make_no_batch(tmp_path):
    def transitions(number):
        return TensorDict({"x": torch.zeros(number, 1)}, [number])

    sampler = PrioritizedSampler(4)
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(4), sampler=sampler, batch_size=1)
    replay = Replay(buffer, 4, Segments(tmp_path), prioritized=True, test_fraction=0.5)
    assert not replay.can_draw
    held_out = replay._held_out(torch.arange(40)).tolist()
    for number in range(40):
        replay.extend(transitions(1))
        oldest = max(0, number - 3)
        assert replay.can_draw == (not all(held_out[oldest : number + 1]))
        if replay.can_draw:
            next(iter(replay.batches(1, 1)))
    assert any(all(held_out[max(0, number - 3) : number + 1]) for number in range(40))  # there was such a moment
