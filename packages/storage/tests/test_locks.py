"""One process at a time works in a directory; the others are told which one."""

import multiprocessing
import os
import socket
import threading

import pytest

from tesserl_storage import InUseError, locked
from tesserl_storage.locks import is_lock

OWNER = rf"another process \({os.getpid()} on {socket.gethostname()}, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\)"


def test_a_lock_whose_owner_is_not_known_refuses_all_the_same(tmp_path):
    with locked(tmp_path, doing="writes here", remedy="wait for it"):
        for text in ("", "[]", '{"pid": 1}'):
            (tmp_path / ".lock.owner.json").write_text(text)
            refusal = pytest.raises(InUseError, match=r"another process writes here; wait for it$")
            with refusal, locked(tmp_path, doing="writes here", remedy="wait for it", timeout=0.0):
                pass
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]
    assert is_lock(".lock")
    assert is_lock(".lock.owner.json")
    assert not is_lock("blocks.json")


def test_the_refusal_names_who_holds_the_lock_and_others_are_not_kept_out(tmp_path):
    with locked(tmp_path, doing="trains here", remedy="wait"):
        refusal = pytest.raises(InUseError, match=f"{OWNER} trains here; name another directory")
        with refusal, locked(tmp_path, doing="trains here", remedy="name another directory", timeout=0.0):
            pass
        with locked(tmp_path, doing="judges", remedy="wait", name=".labels.lock", timeout=0.0):
            pass
    with locked(tmp_path, doing="trains here", remedy="wait", timeout=0.0):
        pass


def hold_and_wait(directory, begun):
    with locked(directory, doing="", remedy=""):
        begun.set()
        threading.Event().wait(60)


def test_a_killed_process_holds_no_lock(tmp_path):
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    process = context.Process(target=hold_and_wait, args=(tmp_path, begun))
    process.start()
    assert begun.wait(60)
    process.kill()
    process.join()
    with locked(tmp_path, doing="", remedy=""):
        pass
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]
