"""Checkpoints: what goes in comes out, and nothing damaged gets in."""

import json
import re
import shutil
import subprocess

import pytest
import torch

from tesserl_storage.errors import StorageError
from tesserl_storage.sealed_json import write_sealed
from tesserl_training.checkpoints import checkpoint
from tesserl_training.checkpoints.checkpoint import load_checkpoint, load_networks, read_manifest
from tesserl_training.checkpoints.names import checkpoint_name, step_of
from tesserl_training.checkpoints.run_checkpoints import Checkpoints
from tesserl_training.replay_segments import Segments

pytestmark = pytest.mark.kernel_free


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
        with pytest.raises(StorageError, match=message):
            load_checkpoint(saved)
        path.write_bytes(content)
    load_checkpoint(saved)


def test_foreign_directories_and_formats_are_refused(saved, tmp_path):
    with pytest.raises(StorageError, match=r"no checkpoint here \(manifest.json is missing\)"):
        load_checkpoint(tmp_path)
    manifest = saved / "manifest.json"
    for text, message in (
        ('{"format_version": 99, "files": {}}', "expected format_version 2, got 99; another version of Tesserl"),
        ("[]", "expected keys and values, got list"),
        ("{", "cannot be read as JSON"),
        ("\x00\x93", "cannot be read as JSON"),
    ):
        manifest.write_text(text)
        with pytest.raises(StorageError, match=message):
            load_checkpoint(saved)


def test_files_that_match_the_manifest_but_not_each_other_are_an_error(saved, tmp_path):
    other = Checkpoints(tmp_path / "other").save(17, {"networks": {"z": torch.zeros(1)}, "environments": None})
    shutil.copy(other / "networks.safetensors", saved)
    manifest, foreign = read_manifest(saved), read_manifest(other)
    manifest["files"]["networks.safetensors"] = foreign["files"]["networks.safetensors"]
    write_sealed(saved / "manifest.json", manifest)
    with pytest.raises(StorageError, match=r"do not fit together: KeyError"):
        load_checkpoint(saved)


def test_pickled_files_are_never_read(saved):
    torch.save({"a": torch.zeros(1)}, saved / "networks.safetensors")
    with pytest.raises(StorageError, match=r"networks\.safetensors"):
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
    with pytest.raises(StorageError, match="SHA-256 differs"):
        segments.read(entries)
    path.unlink()
    with pytest.raises(StorageError, match="missing; a run keeps the replay of its newest checkpoints only"):
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


# --- names and order of steps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 17, 999_999_999, 1_000_000_000, 1_000_100_000, 10**12, 10**18 - 1])
def test_the_name_of_a_checkpoint_says_its_step(step):
    assert step_of(checkpoint_name(step)) == step


@pytest.mark.parametrize(
    "name", ["step_17", "step_0000000017", "step_00000001x", "step_000000017 (copy)", "best", "../step_000000017", ""]
)
def test_other_names_are_no_checkpoints(tmp_path, name):
    assert step_of(name) is None
    if "/" not in name:
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert Checkpoints(tmp_path).paths() == []


PAST = (999_800_000, 999_900_000, 1_000_000_000, 1_000_100_000)
"""Steps whose names do not sort as text."""


def test_the_newest_checkpoints_stay_past_a_billion_steps(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_last=2, keep_best=True)
    for step in PAST:
        checkpoints.save(step, {})
        if step == PAST[1]:
            checkpoints.mark_best({"checkpoint": "step_999900000", "return_mean": 500.0})
        checkpoints.prune()
    assert [path.name for path in checkpoints.paths()] == ["step_999900000", "step_1000000000", "step_1000100000"]
    assert [path.name for path in checkpoints.newest()] == ["step_1000000000", "step_1000100000"]
    assert checkpoints.latest().name == "step_1000100000"
    with pytest.raises(StorageError, match="there are: step_999900000, step_1000000000, step_1000100000"):
        checkpoints.find("step_000000001")


def test_rewinding_past_a_billion_steps_removes_what_is_newer_and_nothing_else(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_last=9)
    for step in PAST:
        checkpoints.save(step, {})
    best = {"checkpoint": "step_999900000", "return_mean": 500.0}
    assert checkpoints.rewind(PAST[3], best) == []
    assert checkpoints.best().name == "step_999900000"
    assert checkpoints.rewind(PAST[1], best) == ["step_1000000000", "step_1000100000"]
    assert [path.name for path in checkpoints.paths()] == ["step_999800000", "step_999900000"]
    assert not list(checkpoints.directory.glob(".*"))


def test_segments_keep_their_order_past_the_digits_of_their_names(tmp_path):
    segments, first = Segments(tmp_path, size=10), 10**12 - 15
    entries = segments.write(transitions, first, first + 30)
    read = list(Segments(tmp_path, size=10).read(entries))
    assert [start for start, _, _ in read] == [first, 10**12 - 10, 10**12, 10**12 + 10]
    assert torch.cat([rows["observation"] for *_, rows in read]).tolist() == list(range(first, first + 30))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": "../../secret.safetensors"}, r"expected a segment from 0 to 10, got '\.\./\.\./secret"),
        ({"file": "000000000010-000000000013.safetensors"}, "expected a segment from 0 to 10, got '000000000010"),
        ({"start": 10}, "expected a segment from 10 to 10"),
        ({"stop": "10"}, "replay.stop: expected a whole number from 0 to .*, got '10'"),
        ({"bytes": None}, "replay.bytes: expected a whole number"),
    ],
)
def test_an_entry_of_a_segment_that_is_not_consistent_is_refused(tmp_path, change, message):
    segments = Segments(tmp_path, size=10)
    entries = segments.write(transitions, 0, 13)
    with pytest.raises(StorageError, match=message):
        segments.read([entries[0] | change, entries[1]])


def test_a_segment_that_is_left_out_is_noticed(tmp_path):
    segments = Segments(tmp_path, size=10)
    entries = segments.write(transitions, 0, 33)
    with pytest.raises(
        StorageError, match=r"000000000020-000000000030\.safetensors: expected the segment that begins at 10"
    ):
        segments.read([entries[0], *entries[2:]])


def test_pruning_leaves_files_that_are_no_segments(tmp_path):
    segments, checkpoints = Segments(tmp_path, size=10), Checkpoints(tmp_path)
    path = checkpoints.save(1, {}, segments=segments.write(transitions, 0, 5))
    (segments.directory / "notes.txt").write_text("mine")
    segments.prune([path])
    assert sorted(file.name for file in segments.directory.iterdir()) == [
        "000000000000-000000000005.safetensors",
        "notes.txt",
    ]


def test_a_checkpoint_names_the_commit_around_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert checkpoint._commit.__wrapped__() is None
    if shutil.which("git") is None:
        pytest.skip("there is no git here")
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], [*author, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *words], check=True)
    assert re.fullmatch("[0-9a-f]{40}", checkpoint._commit.__wrapped__())
    monkeypatch.setenv("PATH", "")
    assert checkpoint._commit.__wrapped__() is None
