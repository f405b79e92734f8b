"""Files that grow: a piece that could not be appended is not there, and a line that a kill cut off is no line."""

import pytest

from tesserl_storage import AppendedFile, remove_unfinished_line, whole_lines

from .full_disk import files_of_at_most


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (b"", b""),
        (b'{"a', b""),
        (b'{"a": 1}', b'{"a": 1}\n'),
        (b'{"a": 1}\n', b'{"a": 1}\n'),
        (b'{"a": 1}\n{"b": ', b'{"a": 1}\n'),
        (b'{"a": 1}\n{"b": 2}', b'{"a": 1}\n{"b": 2}\n'),
        (b"\n\n5", b"\n\n"),
    ],
)
def test_whole_lines_are_what_the_next_append_finds(tmp_path, data, whole):
    path = tmp_path / "lines"
    path.write_bytes(data)
    assert whole_lines(path) == whole
    remove_unfinished_line(path)
    assert path.read_bytes() == whole


def test_there_may_be_no_file_of_lines(tmp_path):
    assert whole_lines(tmp_path / "none") == b""
    remove_unfinished_line(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_an_append_that_is_interrupted_half_way_leaves_nothing_of_it(tmp_path, monkeypatch):
    with AppendedFile(tmp_path / "file") as file:
        file.write(b"whole\n")
        raw = file._file

        class Interrupted:
            """Writes three bytes, then Ctrl-C."""

            fileno, truncate, calls = raw.fileno, raw.truncate, 0

            def write(self, data):
                self.calls += 1
                if self.calls == 2:
                    raise KeyboardInterrupt
                return raw.write(bytes(data[:3]))

        monkeypatch.setattr(file, "_file", Interrupted())
        with pytest.raises(KeyboardInterrupt):
            file.write(b"half a line\n")
        monkeypatch.undo()
        file.write(b"next\n")
    assert (tmp_path / "file").read_bytes() == b"whole\nnext\n"


def test_an_append_on_a_full_disk_leaves_nothing_of_it(tmp_path):
    with AppendedFile(tmp_path / "file") as file:
        file.write(b"whole\n", sync=True)
        for _ in range(2):
            with files_of_at_most(10), pytest.raises(OSError, match=r"File too large: '.*file'"):
                file.write(b"next line\n")
            assert (tmp_path / "file").read_bytes() == b"whole\n"
        file.write(b"next line\n")
        file.sync()
    assert (tmp_path / "file").read_bytes() == b"whole\nnext line\n"
