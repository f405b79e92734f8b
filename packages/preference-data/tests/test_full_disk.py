"""Writes that fail half-way, as on a full disk: what was there is still there, and nothing half-written is."""

import errno
import json
import os
import stat

import pytest

from tesserl_preference_data import StoreError, append_label, append_pairs, load_pairs, read_labels, save_pairs
from tesserl_preference_data.files import read_manifest

from .full_disk import files_of_at_most


def content(directory):
    return {file.name: file.read_bytes() for file in directory.iterdir() if not file.name.startswith(".")}


def test_a_label_on_a_full_disk_leaves_the_earlier_ones_readable_and_no_half_line(store):
    append_label(store, 0, "first", source="anna")
    before = (store / "labels.jsonl").read_bytes()
    for _ in range(2):
        with files_of_at_most(len(before) + 20), pytest.raises(OSError, match=r"labels.jsonl") as caught:
            append_label(store, 2, "second", source="anna")
        assert caught.value.errno == errno.EFBIG
        assert (store / "labels.jsonl").read_bytes() == before
        assert read_labels(store) == {0: ("first", "anna")}
        assert len(load_pairs(store)) == 20
    append_label(store, 2, "second", source="anna")
    assert read_labels(store) == {0: ("first", "anna"), 2: ("second", "anna")}


@pytest.mark.parametrize("rest", [b'{"pair": 4, "cho', b'{"pair": 4}, {', b"[1]", b"\0" * 30, '{"ä'.encode()[:-1]])
def test_a_half_line_of_a_killed_process_is_ignored_and_the_next_label_removes_it(store, rest):
    append_label(store, 3, "tie", source="anna")
    before = (store / "labels.jsonl").read_bytes()
    (store / "labels.jsonl").write_bytes(before + rest)
    assert read_labels(store) == {3: ("tie", "anna")}
    assert len(load_pairs(store)) == 20
    append_label(store, 5, "tie", source="anna")
    assert (store / "labels.jsonl").read_bytes().startswith(before + b'{"pair": 5, ')
    assert read_labels(store) == {3: ("tie", "anna"), 5: ("tie", "anna")}


def test_a_last_label_whose_newline_an_editor_removed_still_counts(store):
    append_label(store, 3, "tie", source="anna")
    (store / "labels.jsonl").write_bytes((store / "labels.jsonl").read_bytes().rstrip())
    assert read_labels(store) == {3: ("tie", "anna")}
    append_label(store, 4, "first", source="anna")
    assert read_labels(store) == {3: ("tie", "anna"), 4: ("first", "anna")}


def test_a_broken_line_before_the_last_one_is_an_error_as_before(store):
    (store / "labels.jsonl").write_text('{"pair": 4, "cho\n{"pair": 5, "choice": "tie", "source": "anna"}\n')
    with pytest.raises(StoreError, match=r"labels.jsonl:1: the line cannot be read: "):
        read_labels(store)


def test_pairs_on_a_full_disk_leave_no_store_behind(pairs, tmp_path):
    size = (save_pairs(pairs, tmp_path / "whole") / "segments-00000.safetensors").stat().st_size
    for limit in (0, 100, size - 1):
        with files_of_at_most(limit), pytest.raises(OSError, match=str(tmp_path)) as caught:
            save_pairs(pairs, tmp_path / "pairs")
        assert caught.value.errno == errno.EFBIG
        assert [file.name for file in tmp_path.iterdir()] == ["whole"]


def test_appended_pairs_on_a_full_disk_leave_the_store_as_it_was(pairs, store):
    before = content(store)
    sizes = sorted(entry["size"] for entry in read_manifest(store))
    for limit in (0, 100, sizes[0], (store / "manifest.json").stat().st_size):
        with files_of_at_most(limit), pytest.raises(OSError, match=str(store)):
            append_pairs(pairs, store)
        assert content(store) == before
        assert not list(store.glob(".*.partial"))
    append_pairs(pairs, store)
    assert len(load_pairs(store)) == 40


def test_what_a_killed_process_left_in_a_store_is_removed(pairs, store):
    (store / ".segments-00002.safetensors.0123abcd.partial").touch()
    append_pairs(pairs, store)
    assert not list(store.glob(".*.partial"))


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_every_file_gets_the_mode_of_the_umask(pairs, tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        path = save_pairs(pairs, tmp_path / "pairs")
        append_pairs(pairs, path)
        append_label(path, 0, "tie", source="anna")
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()}
    assert set(modes) == {
        "manifest.json", "labels.jsonl", ".lock", ".labels.lock", "pairs-00001.jsonl", "pairs-00003.jsonl",
        "segments-00000.safetensors", "segments-00002.safetensors",
    }  # fmt: skip
    assert set(modes.values()) == {mode}
    assert json.loads((path / "manifest.json").read_text())["files"]
