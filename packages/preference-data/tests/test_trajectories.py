"""Stores of trajectories: what is written is read, damage is named, and what was there stays."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from tesserl_preference_data import StoreError, TrajectoryWriter, load_trajectories
from tesserl_preference_data import trajectory_writer as storing
from tesserl_preference_data.pictures import FRAME_BYTES, encode_frame, frame_png

from .stores import trajectory, write_trajectories

pytestmark = pytest.mark.kernel_free


@pytest.mark.parametrize("shape", [(40, 60, 3), (500, 300, 3), (10, 10), (1, 300, 3)])
def test_a_picture_fits_whatever_it_shows(shape):
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    frame = encode_frame(noise)
    assert (frame.shape, frame.dtype) == ((FRAME_BYTES,), torch.uint8)
    assert frame_png(frame).startswith(b"\x89PNG")
    assert frame_png(frame).endswith(b"IEND\xaeB`\x82")
    assert torch.equal(encode_frame(noise / 255), frame)
    with pytest.raises(ValueError, match=r"a picture must have the shape \[H, W, 3\] or \[H, W\], got \[5, 5, 4\]"):
        encode_frame(np.zeros((5, 5, 4), np.uint8))


def test_a_write_that_was_cut_off_leaves_the_store_as_it_was(tmp_path, monkeypatch):
    store = write_trajectories(tmp_path / "store", [4, 2])
    monkeypatch.setattr(storing, "write_json", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space left"):
        write_trajectories(store, [3])
    assert len(load_trajectories(store)) == 2
    monkeypatch.undo()
    write_trajectories(store, [5])
    assert [episode.length for episode in load_trajectories(store).episodes] == [4, 2, 5]


def test_large_collections_are_written_in_files(tmp_path, monkeypatch):
    monkeypatch.setattr(storing, "FILE_BYTES", 1)
    stored = load_trajectories(write_trajectories(tmp_path / "store", [4, 2, 6]))
    assert len(stored.manifest["files"]) == 6
    for number, length in enumerate([4, 2, 6]):
        expected: TensorDict = trajectory(number, length)
        assert bool((stored[number].exclude(("next", "done")) == expected.fill_("action_log_prob", -0.5)).all())
    assert [len(episode) for episode in stored[-2:]] == [2, 6]


@pytest.mark.parametrize("damage", ["flipped", "short", "missing", "version", "json", "line"])
def test_a_damaged_store_is_an_error_that_names_the_file(tmp_path, damage):
    store = write_trajectories(tmp_path / "store", [4, 2])
    steps, episodes, manifest = (
        store / name for name in ("steps-00000.safetensors", "episodes-00001.jsonl", "manifest.json")
    )
    content = bytearray(steps.read_bytes())
    content[-1] ^= 1
    actions = {
        "flipped": (lambda: steps.write_bytes(content), "steps-00000.safetensors: SHA-256 differs"),
        "short": (lambda: steps.write_bytes(content[:-3]), "steps-00000.safetensors: expected .* bytes, got"),
        "missing": (episodes.unlink, "episodes-00001.jsonl: missing"),
        "version": (lambda: manifest.write_text(manifest.read_text().replace("_version\": 1", "_version\": 2")),
                    "manifest.json must be of format 'tesserl-trajectories', version 1, got .*2"),
        "json": (lambda: manifest.write_text("{"), "manifest.json cannot be read"),
        "line": (lambda: _replace_line(store), r"episodes-00001.jsonl:2: an episode must have length"),
    }  # fmt: skip
    act, message = actions[damage]
    act()
    with pytest.raises(StoreError, match=message):
        load_trajectories(store)


def _replace_line(store: Path) -> None:
    """A file that is as its manifest says, and wrong all the same."""
    file = store / "episodes-00001.jsonl"
    first, _ = file.read_text().splitlines()
    file.write_text(f'{first}\n{{"length": 2}}\n')
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["files"][1] |= storing.digest(file)
    (store / "manifest.json").write_text(json.dumps(manifest))


def test_a_directory_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"must be a store of trajectories, new or empty, got \['thesis.txt'\] there"):
        TrajectoryWriter(tmp_path, source={})
