"""Several processes that write into one store."""

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tesserl_preference_data import StoreError, append_label, append_pairs, load_pairs, read_labels, save_pairs
from tesserl_preference_data import store as store_module
from tesserl_storage.locks import InUseError, locked


def test_pairs_that_are_added_at_once_are_all_there(pairs, store):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: append_pairs(pairs, store), range(8)))
    assert len(load_pairs(store)) == 9 * 20


def test_labels_that_are_written_at_once_are_all_there(store):
    def write(pair):
        append_label(store, pair, "tie", source=f"person {pair}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(20)))
    assert read_labels(store) == {pair: ("tie", f"person {pair}") for pair in range(20)}
    assert len((store / "labels.jsonl").read_text().splitlines()) == 20


def test_people_can_judge_while_pairs_are_added(pairs, store, monkeypatch):
    written = []

    def write_manifest(*arguments):
        append_label(store, 1, "first", source="anna")
        written.append(read_labels(store))
        real(*arguments)

    real = store_module.write_manifest
    monkeypatch.setattr(store_module, "write_manifest", write_manifest)
    append_pairs(pairs, store)
    assert written == [{1: ("first", "anna")}]


def test_one_of_two_processes_makes_a_store_and_the_other_is_refused(pairs, tmp_path, monkeypatch):
    barrier, path = threading.Barrier(2), tmp_path / "pairs"

    def write_manifest(*arguments):
        real(*arguments)
        barrier.wait(60)  # both have written all their files

    real = store_module.write_manifest
    monkeypatch.setattr(store_module, "write_manifest", write_manifest)

    def save(_):
        try:
            save_pairs(pairs, path)
        except StoreError as error:
            return str(error)
        return "made"

    with ThreadPoolExecutor(2) as pool:
        made, refused = sorted(pool.map(save, range(2)), key=len)
    assert made == "made"
    assert refused == f"{path} must not exist, a store is not overwritten; use append_pairs, or another directory"
    assert len(load_pairs(path)) == 20
    assert [file.name for file in tmp_path.iterdir()] == ["pairs"]


def test_a_lock_that_is_held_too_long_names_its_owner(pairs, store, monkeypatch):
    def impatient(directory, **options):
        return locked(directory, **options, timeout=0.0)

    monkeypatch.setattr(store_module, "locked", impatient)
    refused = pytest.raises(
        InUseError, match=r"pairs: another process \(\d+ on .+, since .+\) adds pairs to this store"
    )
    with locked(store, doing="", remedy=""), refused:
        append_pairs(pairs, store)
    assert len(load_pairs(store)) == 20


def _hold_and_exit(directory, begun):
    with locked(directory, doing="", remedy=""):
        begun.set()
        threading.Event().wait(60)


def test_a_killed_process_holds_no_lock(pairs, store):
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    process = context.Process(target=_hold_and_exit, args=(store, begun))
    process.start()
    assert begun.wait(60)
    process.kill()
    process.join()
    append_pairs(pairs, store)
    assert len(load_pairs(store)) == 40
    assert not (store / ".lock.owner.json").exists()
