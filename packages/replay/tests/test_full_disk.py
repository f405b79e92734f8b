"""Storages whose disk is full: an error that names the file, and never a process that is gone."""

import errno
from contextlib import contextmanager

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import TensorDictReplayBuffer

from tesserl_replay import FrameStorage, disk, frame_pool
from tesserl_replay.disk import MemmapStorage

resource = pytest.importorskip("resource")


@contextmanager
def files_of_at_most(size):
    """Lets no file grow beyond a size, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def steps(first, number):
    """Ten numbers of four bytes each, and the same below ``next``."""
    values = torch.arange(first, first + number).unsqueeze(1).expand(number, 10).float()
    return TensorDict({"observation": values, "next": {"observation": values + 1}}, [number])


def test_mapped_transitions_have_room_on_the_disk_before_they_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "CHUNK", 88 * 200)  # 200 transitions: observations, and the index that a buffer adds
    reserved, real = [], disk.reserve

    def reserve(file, size, *, name):
        reserved.append((name.rpartition("/")[2], size // 40))
        real(file, size, name=name)

    monkeypatch.setattr(disk, "reserve", reserve)
    storage = MemmapStorage(1000, scratch_dir=tmp_path)
    buffer = TensorDictReplayBuffer(storage=storage, batch_size=4)
    for first, number in ((0, 1), (1, 199), (200, 1), (201, 799), (0, 7)):
        buffer.extend(steps(first, number))
    own = [rows for name, rows in reserved if name == "observation.memmap"]
    assert own == [200, 200, 400, 400, 1000, 1000]  # the two files of an observation and the next one
    assert storage.get(torch.tensor([6, 500]))["next", "observation"][:, 3].tolist() == [7.0, 501.0]


@pytest.mark.parametrize("function", ["posix_fallocate", "nothing"])
def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(tmp_path, monkeypatch, function):
    monkeypatch.setattr(disk, "CHUNK", 80 * 200)

    def full(descriptor, offset, length):
        if length > 40 * 200:
            raise OSError(errno.ENOSPC, "No space left on device")

    storage = MemmapStorage(1000, scratch_dir=tmp_path)
    storage.set(range(200), steps(0, 200))
    if function == "nothing":  # a system without it works as before
        monkeypatch.delattr(disk.os, "posix_fallocate")
        storage.set(range(200, 201), steps(200, 1))
        return
    monkeypatch.setattr(disk.os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*observation.memmap'"):
        storage.set(range(200, 201), steps(200, 1))
    assert storage.get(199)["observation"][0] == 199.0


def test_a_file_system_that_reserves_nothing_is_no_error(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(disk.os, "posix_fallocate", unsupported)
    storage = MemmapStorage(10, scratch_dir=tmp_path)
    storage.set(0, steps(5, 1)[0])
    assert storage.get(0)["observation"][0] == 5.0


def images(numbers):
    """Stacks of two frames of 8 x 8."""
    frames = torch.tensor(numbers).reshape(-1, 1, 1, 1).expand(-1, 2, 8, 8).to(torch.uint8).clone()
    frames[:, 0] += 1
    return TensorDict({"pixels": frames, "next": {"pixels": frames + 2}}, [len(numbers)])


def test_frames_in_files_have_room_on_the_disk_before_they_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(frame_pool, "CHUNK", 64 * 10)
    reserved = []
    monkeypatch.setattr(frame_pool, "reserve", lambda file, size, name: reserved.append((size // 64, str(name))))
    storage = FrameStorage(16, num_frames=2, scratch_dir=tmp_path)  # blocks of 21 frames
    for number in range(8):  # four new frames each, in two writes
        storage.set([number], images([number * 10]))
    # 2 + 10; 14 + 10, but a block ends at 21; at 22 the whole block; 22 + 10 are 11 of the next one
    assert reserved == [(number, str(tmp_path)) for number in (12, 21, 21, 11)]


def test_frames_on_a_full_disk_are_an_error(tmp_path, monkeypatch):
    storage = FrameStorage(1000, num_frames=2, scratch_dir=tmp_path)
    with files_of_at_most(64 * 100), pytest.raises(OSError, match="File too large"):
        storage.set(range(8), images([10 * number for number in range(8)]))
