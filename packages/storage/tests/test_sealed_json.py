"""JSON files that notice a change."""

import json

import pytest

from tesserl_storage import StorageError, digest, read_sealed, write_sealed
from tesserl_storage.sealed_json import content_digest, read_object


def test_what_is_sealed_can_be_read_and_any_change_is_noticed(tmp_path):
    path = tmp_path / "run.json"
    write_sealed(path, {"step": 17, "nested": {"b": [1.5, None], "a": "ü"}})
    assert read_sealed(path) == {"step": 17, "nested": {"b": [1.5, None], "a": "ü"}}
    document = json.loads(path.read_text())
    for changed in ({**document, "step": 18}, {**document, "more": 0}, {"step": 17}, {**document, "sha256": "0"}):
        path.write_text(json.dumps(changed))
        with pytest.raises(StorageError, match=r"run.json: its SHA-256 is not that of its content"):
            read_sealed(path)


def test_the_order_of_keys_and_white_space_do_not_count(tmp_path):
    path = tmp_path / "run.json"
    write_sealed(path, {"a": 1, "b": {"c": 2, "d": 3}})
    document = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(document.items())), indent=7))
    assert read_sealed(path) == {"a": 1, "b": {"c": 2, "d": 3}}
    assert content_digest({"a": 1, "b": 2}) == content_digest({"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected keys and values, got list"),
        ("{", "cannot be read as JSON"),
        ("\x00\x93", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_what_is_no_object_is_refused(tmp_path, text, message):
    (tmp_path / "file").write_text(text)
    with pytest.raises(StorageError, match=f"file: {message}"):
        read_object(tmp_path / "file")
    with pytest.raises(StorageError, match="none: cannot be read as JSON"):
        read_object(tmp_path / "none")


def test_a_digest_is_size_and_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of FIPS 180-2
    assert digest(tmp_path / "file") == {"bytes": 3, "sha256": expected}
