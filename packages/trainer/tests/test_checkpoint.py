"""Checkpoints: what goes in comes out, and nothing damaged gets in."""

import json
import random
import shutil

import numpy as np
import pytest
import torch

from tesserl_trainer.run.checkpoint import CheckpointError, Checkpoints, load_checkpoint, load_networks
from tesserl_trainer.run.segments import Segments
from tesserl_trainer.run.state import generators_state, join_state, seed_generators, set_generators_state, split_state


def make_state() -> dict:
    shared = torch.arange(6.0).reshape(2, 3)
    return {
        "networks": {"a": shared, "b": shared, "c": shared.t(), "empty": torch.zeros(0), "flag": torch.tensor(True)},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0), "mean": torch.ones(2)}}, "groups": [{"lr": 1e-4}]},
        "environments": [{"start": {"seed": 2**70}}],
        "counters": {"step": 17, "exact": True, "none": None, "name": "x", "score": 0.1 + 0.2},
        "waiting": {"next/reward": torch.arange(4, dtype=torch.int64)},
    }


def assert_equal(left, right):
    if isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            assert_equal(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_equal(one, other)
    else:
        assert left == right
        assert type(left) is type(right)


@pytest.fixture
def saved(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    return checkpoints.save(17, make_state())


def test_a_state_survives_the_disk(saved):
    checkpoint = load_checkpoint(saved)
    state = make_state()
    assert checkpoint.step == 17
    for key in state:
        assert_equal(state[key], checkpoint.state[key])


def test_networks_can_be_read_alone(saved):
    (saved / "state.safetensors").unlink()
    networks = load_networks(saved)
    assert_equal(make_state()["networks"], {key: networks[key] for key in make_state()["networks"]})


def test_a_tensor_with_two_owners_is_stored_once(saved):
    header_size = int.from_bytes((saved / "networks.safetensors").read_bytes()[:8], "little")
    header = json.loads((saved / "networks.safetensors").read_bytes()[8 : 8 + header_size])
    assert "networks.a" in header
    assert "networks.b" not in header
    assert json.loads(header["__metadata__"]["aliases"]) == {"networks.b": "networks.a"}


@pytest.mark.parametrize("name", ["networks.safetensors", "optimizer.safetensors", "state.safetensors", "state.json"])
def test_every_damage_is_found_and_named(saved, name):
    path = saved / name
    content = path.read_bytes()
    for damaged, message in (
        (content[:-1], f"{name}: expected {len(content)} bytes, got {len(content) - 1}"),
        (content[:-3] + bytes([content[-3] ^ 4]) + content[-2:], f"{name}: SHA-256 differs"),
        (None, f"{name}: missing"),
    ):
        path.unlink()
        if damaged is not None:
            path.write_bytes(damaged)
        else:
            path.unlink(missing_ok=True)
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(saved)
        path.write_bytes(content)
    load_checkpoint(saved)


def test_foreign_directories_and_formats_are_refused(saved, tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint here \(manifest.json is missing\)"):
        load_checkpoint(tmp_path)
    manifest = saved / "manifest.json"
    for text, message in (
        ('{"format_version": 99, "files": {}}', "expected format_version 1, got 99"),
        ("[]", "expected format_version 1, got list"),
        ("{", "cannot be read as JSON"),
        ("\x00\x93", "cannot be read as JSON"),
    ):
        manifest.write_text(text)
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(saved)


def test_files_that_match_the_manifest_but_not_each_other_are_an_error(saved, tmp_path):
    other = Checkpoints(tmp_path / "other").save(17, {"networks": {"z": torch.zeros(1)}, "environments": None})
    shutil.copy(other / "networks.safetensors", saved)
    manifest = json.loads((saved / "manifest.json").read_text())
    manifest["files"]["networks.safetensors"] = json.loads((other / "manifest.json").read_text())["files"][
        "networks.safetensors"
    ]
    (saved / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"do not fit together: KeyError"):
        load_checkpoint(saved)


def test_pickled_files_are_never_read(saved):
    torch.save({"a": torch.zeros(1)}, saved / "networks.safetensors")
    with pytest.raises(CheckpointError, match=r"networks\.safetensors"):
        load_networks(saved)


def test_the_newest_and_the_best_stay(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_last=2, keep_best=True)
    for step in (1, 2, 3, 4, 5):
        checkpoints.save(step, {})
        if step == 2:
            checkpoints.mark_best({"checkpoint": "step_000000002", "return_mean": 1.0})
        checkpoints.prune()
    assert sorted(p.name for p in checkpoints.directory.glob("step_*")) == [f"step_00000000{i}" for i in (2, 4, 5)]
    assert checkpoints.latest().name == "step_000000005"
    assert checkpoints.best().name == "step_000000002"


def test_a_best_checkpoint_that_is_not_kept_is_none(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_last=1, keep_best=False)
    assert checkpoints.best() is None
    checkpoints.save(1, {})
    checkpoints.mark_best({"checkpoint": "step_000000001", "return_mean": 1.0})
    assert checkpoints.best() == checkpoints.latest()
    checkpoints.save(2, {})
    checkpoints.prune()
    assert checkpoints.best() is None


def test_rewinding_removes_what_is_newer(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_last=9)
    for step in (1, 2, 3):
        checkpoints.save(step, {})
    checkpoints.mark_best({"checkpoint": "step_000000003", "return_mean": 1.0})
    checkpoints.rewind(2, {"checkpoint": "step_000000001", "return_mean": 0.5})
    assert checkpoints.latest().name == "step_000000002"
    assert checkpoints.best().name == "step_000000001"
    assert not (checkpoints.directory / "step_000000003").exists()


def test_an_interrupted_write_leaves_no_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    first = checkpoints.save(1, make_state())
    with pytest.raises(TypeError, match=r"state counters: expected tensors and JSON data, got set"):
        checkpoints.save(2, {"counters": {1, 2}})
    assert checkpoints.latest() == first
    assert [p.name for p in checkpoints.directory.glob("step_*")] == ["step_000000001"]
    checkpoints.prune()
    assert not list(checkpoints.directory.glob(".*"))


def test_splitting_and_joining_are_inverse():
    state = make_state()
    document, tensors = split_state(state)
    assert_equal(state, join_state(json.loads(json.dumps(document)), tensors))


def test_all_generators_continue_where_they_were():
    def draw():
        legacy = np.random.standard_normal(3).tolist()  # noqa: NPY002
        return random.random(), random.gauss(0, 1), legacy, torch.randn(3).tolist()

    seed_generators(5)
    draw()
    document, tensors = split_state(generators_state())
    saved = join_state(json.loads(json.dumps(document)), tensors)
    expected = draw()
    draw()
    set_generators_state(saved)
    assert draw() == expected


def transitions(start: int, stop: int) -> dict[str, torch.Tensor]:
    number = torch.arange(start, stop)
    return {"observation": number, "next/reward": number * 2.0}


def test_full_segments_are_written_once_and_the_open_one_under_its_own_name(tmp_path):
    segments = Segments(tmp_path, size=10)
    calls = []

    def read(start, stop):
        calls.append((start, stop))
        return transitions(start, stop)

    names = [entry["file"][:25] for entry in segments.write(read, 0, 13)]
    assert names == ["000000000000-000000000010", "000000000010-000000000013"]
    segments.write(read, 0, 13)
    segments.write(read, 4, 24)
    assert calls == [(0, 10), (10, 13), (10, 20), (20, 24)]
    entries = segments.write(read, 24, 47)
    assert [(e["start"], e["stop"]) for e in entries] == [(24, 30), (30, 40), (40, 47)]
    again = list(Segments(tmp_path, size=10).read(entries))
    assert [(start, stop) for start, stop, _ in again] == [(24, 30), (30, 40), (40, 47)]
    assert torch.cat([rows["observation"] for *_, rows in again]).tolist() == list(range(24, 47))
    assert torch.cat([rows["next/reward"] for *_, rows in again]).tolist() == [2.0 * i for i in range(24, 47)]


def test_damaged_and_missing_segments_are_found(tmp_path):
    segments = Segments(tmp_path, size=10)
    entries = segments.write(transitions, 0, 5)
    path = segments.directory / entries[0]["file"]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        segments.read(entries)
    path.unlink()
    with pytest.raises(CheckpointError, match="missing; a run keeps the replay of its newest checkpoints only"):
        segments.read(entries)


def test_segments_that_no_checkpoint_needs_are_removed(tmp_path):
    segments, checkpoints = Segments(tmp_path, size=10), Checkpoints(tmp_path, keep_last=1)
    checkpoints.save(1, {}, segments=segments.write(transitions, 0, 13))
    checkpoints.save(2, {}, segments=segments.write(transitions, 5, 26))
    checkpoints.prune()
    segments.prune(checkpoints.newest())
    assert sorted(p.name[:25] for p in segments.directory.iterdir()) == [
        "000000000000-000000000010",
        "000000000010-000000000020",
        "000000000020-000000000026",
    ]
