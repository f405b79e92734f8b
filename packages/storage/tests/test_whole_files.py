"""Files that are whole or not there, and JSON that every parser reads."""

import math
import os
import stat

import numpy as np
import pytest
import torch

from tesserl_storage import (
    difference,
    digest,
    replacing,
    save_tensors,
    whole_directory,
    write_atomically,
    write_json,
    write_tensors,
    write_text,
)
from tesserl_storage.whole_files import json_text, remove_partial

from .full_disk import files_of_at_most
from .strict_json import strict


def test_an_error_names_the_file_that_was_to_be_written(tmp_path):
    def write(partial):
        partial.write_text("x" * 101)

    with files_of_at_most(100), pytest.raises(OSError, match=r"File too large: '.*name'"):
        write_atomically(tmp_path / "name", write)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_of_another_process_is_not_replaced_unasked(tmp_path, monkeypatch, has_links):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(os, "link", no_links)
    write_text(tmp_path / "other", "first")

    def write(partial):
        partial.write_text("second")
        write_text(tmp_path / "new", "of another process")

    with pytest.raises(FileExistsError, match=r"File exists: '.*new'"):
        write_atomically(tmp_path / "new", write, overwrite=False)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "new": "of another process", "other": "first"
    }  # fmt: skip
    write_atomically(tmp_path / "third", lambda partial: partial.write_text("third"), overwrite=False)
    assert (tmp_path / "third").read_text() == "third"


def test_errors_name_the_file_and_are_errors_of_the_system(tmp_path):
    with files_of_at_most(100), pytest.raises(OSError, match=r"File too large: '.*tensors'"):
        write_tensors(tmp_path / "tensors", {"a": torch.zeros(100)})
    with (
        files_of_at_most(100),
        pytest.raises(OSError, match=r"File too large: '.*text'"),
        replacing(tmp_path / "text") as partial,
    ):
        partial.write_text("x" * 101)
    assert not (tmp_path / "text").exists()


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_every_file_gets_the_mode_of_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "text", "x")
        write_json(tmp_path / "json", {})
        save_tensors(tmp_path / "tensors", {"a": torch.zeros(3)})
        with replacing(tmp_path / "replaced") as partial:
            partial.write_text("x")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {mode}
    assert len(list(tmp_path.iterdir())) == 4


def test_what_killed_processes_left_is_removed(tmp_path):
    (tmp_path / ".file.0123abcd.partial").touch()
    (tmp_path / ".step.partial").mkdir()
    (tmp_path / ".step.partial" / "file").touch()
    (tmp_path / "kept.partial").touch()
    remove_partial(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.partial"]


def test_a_number_that_is_not_finite_becomes_null():
    document = {"a": [1.5, math.nan, (math.inf, -math.inf)], "b": {"c": np.float64("nan"), "d": None, "e": True}}
    assert strict(json_text(document)) == {"a": [1.5, None, [None, None]], "b": {"c": None, "d": None, "e": True}}


def test_a_directory_is_there_as_a_whole_or_not_at_all(tmp_path):
    place = tmp_path / "made/with/parents"
    with pytest.raises(KeyboardInterrupt), whole_directory(place) as partial:  # noqa: PT012
        (partial / "first").write_text("x")
        raise KeyboardInterrupt
    assert list(place.parent.iterdir()) == []
    with files_of_at_most(10), pytest.raises(OSError, match="File too large"), whole_directory(place) as partial:
        write_text(partial / "second", "x" * 11)
    assert list(place.parent.iterdir()) == []
    with whole_directory(place) as partial:
        (partial / "first").write_text("x")
        assert not place.exists()
    assert [file.name for file in place.iterdir()] == ["first"]
    with pytest.raises(OSError, match=r"not empty|exists"), whole_directory(place) as partial:
        (partial / "second").write_text("x")
    assert [file.name for file in place.iterdir()] == ["first"]
    assert [file.name for file in place.parent.iterdir()] == ["parents"]


def test_a_file_that_differs_from_its_digest_is_described(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    found = digest(path)
    assert difference(path, found["bytes"], found["sha256"]) is None
    path.write_bytes(b"abd")
    assert difference(path, 3, found["sha256"]) == "SHA-256 differs from the manifest's (altered or damaged)"
    assert difference(path, 3, None) is None
    path.write_bytes(b"ab")
    assert difference(path, 3, None) == "expected 3 bytes, got 2"
    path.unlink()
    assert difference(path, 3, None) == "missing"
