"""The storage of frames gives back what an ordinary storage does, and keeps every frame once."""

import pickle

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer

from tesserl_replay import FrameStorage, NStepWindow, PrioritizedSampler

SHAPE = (3, 5)  # not square, and no multiple of eight pixels


class Camera:
    """One environment whose observation is a stack of its last frames; frames are random, and some repeat."""

    def __init__(self, seed, *, num_frames, channels, zeros):
        self.generator = torch.Generator().manual_seed(seed)
        self.num_frames, self.channels, self.zeros = num_frames, channels, zeros
        self.reset()

    def draw(self, high):
        return int(torch.randint(high, (), generator=self.generator))

    def frame(self):
        if self.draw(5) == 0:
            return torch.full((self.channels, *SHAPE), self.draw(3), dtype=torch.uint8)
        return torch.randint(256, (self.channels, *SHAPE), generator=self.generator, dtype=torch.uint8)

    def reset(self):
        first = self.frame()
        before = torch.zeros_like(first) if self.zeros else first
        self.frames = [before] * (self.num_frames - 1) + [first]
        return self.stack()

    def stack(self):
        return torch.cat(self.frames[-self.num_frames :])

    def step(self):
        """Stack, and how the episode ended: 0 not, 1 in a terminal state, 2 by truncation."""
        self.frames = [*self.frames[1:], self.frame()]
        return self.stack(), max(self.draw(8) - 5, 0)


def rollout(num_envs, num_steps, *, num_frames=4, channels=1, zeros=False, next_step=False, seed=0):
    """Make a collector's rollout ``[N, T]`` with images and vectors."""
    rows = []
    for i in range(num_envs):
        camera = Camera(100 * seed + i, num_frames=num_frames, channels=channels, zeros=zeros)
        current, row, ended = camera.stack(), [], False
        for t in range(num_steps):
            transition = not ended
            if ended:  # NEXT_STEP: this step resets and is no transition
                following, end = camera.reset(), 0
            else:
                following, end = camera.step()
            ended = next_step and end > 0
            row.append((current, following, end, transition, t))
            current = camera.reset() if end and not next_step else following
        rows.append(row)

    def column(read):
        return torch.stack([torch.stack([torch.as_tensor(read(*step)) for step in row]) for row in rows])

    end = column(lambda a, b, end, *_: [end])
    vector = column(lambda a, b, end, mask, t: [float(t), float(end)])
    outcome = {"terminated": end == 1, "truncated": end == 2, "done": end > 0, "reward": torch.rand(end.shape)}
    following = {"pixels": column(lambda a, b, *_: b), "observation": vector + 1, **outcome}
    return TensorDict(
        {
            "pixels": column(lambda a, *_: a),
            "observation": vector,
            "action": torch.randint(4, end.shape[:2]),
            "mask": column(lambda a, b, end, mask, t: mask),
            "next": following,
        },
        end.shape[:2],
    )


def fill(storage, batch, num_steps, chunk, capacity):
    """Writes a rollout to a ring, as the trainer does; yields after every chunk."""
    window, total = NStepWindow(num_steps, 0.9), 0
    for start in range(0, batch.shape[1], chunk):
        transitions = window.extend(batch[:, start : start + chunk])
        total += len(transitions)
        transitions = transitions[-capacity:]
        storage.set(torch.arange(total - len(transitions), total) % capacity, transitions)
        yield min(total, capacity)


@pytest.mark.parametrize(
    ("num_steps", "zeros", "next_step", "num_frames", "channels"),
    [
        (1, False, False, 4, 1),
        (3, False, False, 4, 1),
        (3, True, False, 4, 1),
        (3, False, True, 2, 3),
        (1, True, True, 1, 3),
    ],
)
def test_transitions_are_bit_for_bit_those_of_the_ordinary_storage(num_steps, zeros, next_step, num_frames, channels):
    options = {"num_frames": num_frames, "channels": channels, "zeros": zeros, "next_step": next_step}
    for seed, num_envs in ((0, 1), (1, 3)):
        batch = rollout(num_envs, 40, seed=seed, **options)
        ours, ordinary = FrameStorage(17, num_frames=num_frames), LazyTensorStorage(17)
        generator = torch.Generator().manual_seed(seed)
        both = zip(fill(ours, batch, num_steps, 4, 17), fill(ordinary, batch, num_steps, 4, 17), strict=True)
        for length, _ in both:
            index = torch.randint(max(length, 1), (11,), generator=generator)
            if length:
                assert_equal(ours.get(index), ordinary.get(index))
        everything = ordinary.get(torch.arange(17))
        assert_equal(ours.get(torch.arange(17)), everything)
        frames = torch.stack([everything["pixels"], everything["next", "pixels"]])
        distinct = frames.reshape(-1, channels * SHAPE[0] * SHAPE[1]).unique(dim=0)
        assert ours.num_stored == len(distinct)  # every frame once, and none that nobody needs


def assert_equal(ours, expected):
    keys = set(expected.keys(include_nested=True, leaves_only=True))
    assert set(ours.keys(include_nested=True, leaves_only=True)) == keys
    for key in keys:
        assert ours[key].dtype == expected[key].dtype
        assert torch.equal(ours[key], expected[key]), key


def test_a_transition_of_two_stacks_brings_one_new_frame():
    batch = rollout(2, 30, seed=3).flatten()[:30].clone()
    frames = torch.randint(256, (34, *SHAPE), dtype=torch.uint8)
    batch["pixels"] = torch.stack([frames[t : t + 4] for t in range(30)])
    batch["next", "pixels"] = torch.stack([frames[t + 1 : t + 5] for t in range(30)])
    storage = FrameStorage(100, num_frames=4)
    storage.set(range(30), batch)
    assert storage.num_stored == 34


def test_a_full_storage_does_not_grow():
    storage, total = FrameStorage(40, num_frames=4), 0
    for transitions in (NStepWindow(3, 0.9).extend(rollout(2, 30, seed=seed)) for seed in range(6)):
        for start in range(0, len(transitions), 8):
            part = transitions[start : start + 8]
            storage.set(torch.arange(total, total + len(part)) % 40, part)
            total += len(part)
    pool = storage._pool
    assert total > 300
    assert pool._num_used < 40 * 2  # a transition brings a frame, and one more where an episode begins
    assert len(pool._number_of) == pool.num_stored <= pool._num_used
    assert pool._users.sum() == 40 * 8


def test_what_is_read_is_nobody_elses():
    storage = FrameStorage(10, num_frames=4)
    batch = rollout(1, 10)[0]
    storage.set(slice(0, 10), batch)
    storage.get(torch.arange(10))["pixels"].zero_()
    assert torch.equal(storage.get(3)["pixels"], batch[3]["pixels"])
    assert torch.equal(storage[2:4]["next", "pixels"], batch[2:4]["next", "pixels"])


def test_memory_is_used_again_once_nobody_holds_a_part_of_it():
    storage, batch = FrameStorage(10, num_frames=4), rollout(1, 10)[0]
    storage.set(range(10), batch)
    read = storage.get(torch.arange(7))
    part, place = read["next", "pixels"][3:, 2], read["pixels"].data_ptr()
    del read
    again = storage.get(torch.arange(7))
    assert again["pixels"].data_ptr() != place
    assert torch.equal(part, batch[3:7]["next", "pixels"][:, 2])
    del part
    assert storage.get(torch.arange(7))["pixels"].data_ptr() == place
    assert torch.equal(again["pixels"], batch[:7]["pixels"])


def test_single_transitions_and_equal_positions_are_written_as_in_torchrl():
    storage, batch = FrameStorage(5, num_frames=2), rollout(1, 8, num_frames=2)[0]
    for t in range(5):
        storage.set(t, batch[t])
    storage.set([1, 3, 1], batch[5:8])
    assert torch.equal(storage.get(1)["pixels"], batch[7]["pixels"])
    assert torch.equal(storage.get(3)["next", "pixels"], batch[6]["next", "pixels"])
    assert len(storage) == 5


@pytest.mark.parametrize("scratch", [False, True])
def test_frames_that_nothing_shares_take_further_blocks(scratch, tmp_path):
    storage = FrameStorage(12, num_frames=4, scratch_dir=tmp_path if scratch else None)
    ordinary = LazyTensorStorage(12)
    for seed in range(3):
        data = rollout(1, 9, seed=seed)[0]
        data["pixels"] = torch.randint(256, data["pixels"].shape, dtype=torch.uint8)
        data["next", "pixels"] = torch.randint(256, data["pixels"].shape, dtype=torch.uint8)
        positions = torch.arange(9 * seed, 9 * seed + 9) % 12
        storage.set(positions, data)
        ordinary.set(positions, data)
    assert_equal(storage.get(torch.arange(12)), ordinary.get(torch.arange(12)))
    assert storage.num_stored == 12 * 8


def test_frames_of_equal_hashes_are_told_apart():
    storage, batch = FrameStorage(9, num_frames=1), rollout(1, 9, num_frames=1)[0]
    storage.set(0, batch[0])
    storage._pool._weights[:] = 0  # now every frame has the hash 0
    storage.set(range(9), batch)
    assert_equal(storage.get(torch.arange(9)), batch)
    storage.set(range(9), batch)
    assert_equal(storage.get(torch.arange(9)), batch)


@pytest.mark.parametrize("prioritized", [False, True])
def test_torchrls_buffer_samples_it(prioritized):
    options = {"sampler": PrioritizedSampler(20), "priority_key": "td_error"} if prioritized else {}
    buffer = TensorDictReplayBuffer(storage=FrameStorage(20, num_frames=4), batch_size=16, **options)
    batch = NStepWindow(3, 0.9).extend(rollout(2, 30, seed=5))
    for start in range(0, len(batch), 6):
        buffer.extend(batch[start : start + 6])
    newest = batch[-20:]
    sample = buffer.sample()
    places = (sample["index"] - len(batch)) % 20
    assert torch.equal(sample["pixels"], newest["pixels"][places])
    assert torch.equal(sample["next", "pixels"], newest["next", "pixels"][places])
    sample["td_error"] = torch.rand(16)
    buffer.update_tensordict_priority(sample)
    buffer.empty()
    assert len(buffer) == buffer._storage.num_stored == 0
    buffer.extend(batch[:4])
    assert torch.equal(buffer[:]["pixels"], batch[:4]["pixels"])


@pytest.mark.parametrize("how", ["state", "disk", "pickle", "compact"])
def test_the_content_survives(how, tmp_path):
    batch = NStepWindow(1, 0.9).extend(rollout(2, 9, seed=6))
    storage = FrameStorage(30, num_frames=4)
    storage.set(range(18), batch)
    storage.set(torch.arange(5), batch[9:14])
    again = FrameStorage(30, num_frames=4)
    if how == "state":
        again.set(0, batch[0])
        again.load_state_dict(storage.state_dict())
    elif how == "disk":
        storage.dumps(tmp_path)
        again.set(range(1), batch[:1])
        again.loads(tmp_path)
    elif how == "pickle":
        again = pickle.loads(pickle.dumps(storage))
    else:
        again.set(torch.tensor([29]), batch[:1])
        for first in range(0, 18, 6):
            again.set_compact(torch.arange(first, first + 6), *storage.get_compact(torch.arange(first, first + 6)))
        again.set(torch.tensor([29]), batch[17:])
    assert_equal(again.get(torch.arange(18)), storage.get(torch.arange(18)))
    assert again.num_stored == storage.num_stored
    for each in (storage, again):
        each.set(torch.arange(3, 12), batch[:9])
    assert_equal(again.get(torch.arange(18)), storage.get(torch.arange(18)))
    assert again.num_stored == storage.num_stored


def test_an_empty_storage_survives():
    storage = FrameStorage(30, num_frames=4)
    storage.load_state_dict(FrameStorage(30, num_frames=4).state_dict())
    assert storage.num_stored == 0
    with pytest.raises(IndexError, match="empty storage"):
        storage.get(torch.zeros(0, dtype=torch.int64))


def test_compact_content_does_not_depend_on_where_frames_lie():
    batch = NStepWindow(1, 0.9).extend(rollout(2, 9, seed=6))
    parts = []
    for warm in (1, 7):
        storage = FrameStorage(30, num_frames=4)
        storage.set(torch.arange(20, 20 + warm), batch[18 - warm :])
        storage.set(torch.arange(20), torch.cat([batch[:10], batch[:10]]))
        parts.append(storage.get_compact(torch.arange(10)))
    assert torch.equal(parts[0][1], parts[1][1])
    assert_equal(parts[0][0], parts[1][0])
    assert len(parts[0][1]) < 10 + 2 * 8


def test_bad_input_is_refused_with_its_reason():
    for options in ({"max_size": 0, "num_frames": 1}, {"max_size": 1, "num_frames": 0}):
        with pytest.raises(ValueError, match="must be at least 1, got 0"):
            FrameStorage(**options)
    with pytest.raises(ValueError, match="number of keys must be at least 1"):
        FrameStorage(4, num_frames=1, keys=())
    batch = rollout(1, 4, num_frames=4)[0]
    with pytest.raises(ValueError, match=r"pixels: expected images .* multiple of 3 .* got \(4, 4, 3, 5\)"):
        FrameStorage(4, num_frames=3).set(range(4), batch)
    with pytest.raises(ValueError, match=r"torch\.float32; keep other images in a LazyTensorStorage"):
        FrameStorage(4, num_frames=4).set(range(4), batch.apply(lambda leaf: leaf.float()))
    storage = FrameStorage(4, num_frames=4)
    with pytest.raises(IndexError, match="empty storage"):
        storage.get(torch.tensor([0]))
    storage.set(range(2, 4), batch[:2])
    with pytest.raises(ValueError, match=r"expected frames \(1, 3, 5\) as before, got \(1, 5, 3\)"):
        storage.set(range(2), batch[:2].clone().set("pixels", batch[:2]["pixels"].transpose(-1, -2)))
    with pytest.raises(IndexError, match="nothing has been written"):
        storage.get(torch.tensor([1]))
