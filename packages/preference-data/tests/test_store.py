"""Pairs on disk: whole or not there, mapped, verified, labelled by people; and every damage named."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tensordict import TensorDict

from tesserl_preference_data import (
    PreferencePairs,
    StoreError,
    append_label,
    append_pairs,
    cut_segments,
    load_pairs,
    make_pairs,
    read_labels,
    save_pairs,
)
from tesserl_preference_data import store as store_module


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def unlabelled(make_trajectories):
    """Pairs that nobody has judged."""
    pool = cut_segments(make_trajectories(30), segment_length=5, generator=seeded())
    return make_pairs(pool, num_pairs=10, labelled=False, generator=seeded())


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for key in ("label", "margin", "chosen", "rejected"):
        assert (found[:][key] == expected[:][key]).all(), key
    assert found.source == expected.source


def file_of(store, kind):
    return next(
        store / entry["name"]
        for entry in json.loads((store / "manifest.json").read_text())["files"]
        if entry["kind"] == kind
    )


def test_pairs_come_back_as_they_were(pairs, store):
    assert_equal(load_pairs(store), pairs)
    assert_equal(load_pairs(store, verify=False), pairs)


def test_only_segments_in_use_are_written_each_once(pairs, store):
    used = torch.cat([pairs.chosen_segment, pairs.rejected_segment]).unique()
    found = load_pairs(store).pool
    assert len(found) == len(used) < len(pairs.pool)
    assert found.length.sum() == pairs.pool.length[used].sum()


def test_files_hold_what_their_schema_says(pairs, store):
    manifest = json.loads((store / "manifest.json").read_text())
    assert (manifest["format"], manifest["format_version"]) == ("tesserl-preference-pairs", 1)
    assert [entry["kind"] for entry in manifest["files"]] == ["segments", "pairs"]
    assert sorted(path.name for path in store.iterdir()) == sorted(
        [*(e["name"] for e in manifest["files"]), "manifest.json"]
    )
    tensors = load_file(file_of(store, "segments"))
    steps = {name: tensor for name, tensor in tensors.items() if name.startswith("steps/")}
    assert set(steps) == {"steps/observation", "steps/action", "steps/reward", "steps/value_target"}
    assert set(tensors) - set(steps) == {"start", "length", "group"}
    lines = [json.loads(line) for line in file_of(store, "pairs").read_text().splitlines()]
    assert len(lines) == 20
    first = lines[0]
    assert (first["label"], first["source"]) == (0.5, "score")
    start, length = (int(tensors[name][first["chosen"]]) for name in ("start", "length"))
    own = pairs[0]["chosen"]
    assert torch.equal(steps["steps/observation"][start : start + length], own["observation"][own["mask"]])


def test_nested_keys_and_extra_entries_keep_their_names(pairs, tmp_path):
    frames = [torch.arange(len(block.steps), dtype=torch.uint8) for block in pairs.pool.blocks]
    framed = pairs.with_steps(("extra", "frame"), frames)
    found = load_pairs(save_pairs(framed, tmp_path / "framed"))
    assert ("extra", "frame") in found.pool.keys
    number = int(pairs.chosen_segment[3])
    assert torch.equal(
        found.pool.segment(int(found.chosen_segment[3]))["extra", "frame"],
        framed.pool.segment(number)["extra", "frame"],
    )
    assert_equal(found, framed)


def test_steps_are_mapped_not_read(store):
    tensor = load_pairs(store).pool.blocks[0].steps["observation"]
    name = str(file_of(store, "segments"))
    assert any(name in line for line in Path("/proc/self/maps").read_text().splitlines())
    with safe_open(name, "pt") as handle:
        assert torch.equal(handle.get_tensor("steps/observation"), tensor)


def test_many_steps_go_into_several_files(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_FILE_BYTES", 1500)
    path = save_pairs(pairs, tmp_path / "split")
    assert len(list(path.glob("segments-*"))) > 3
    assert_equal(load_pairs(path), pairs)


def test_appended_pairs_follow_those_that_are_there(pairs, store, make_trajectories):
    pool = cut_segments(make_trajectories(9, seed=5), segment_length=4, value_discount=0.9)
    more = make_pairs(pool, num_pairs=6, generator=seeded())
    before = {path.name: path.read_bytes() for path in store.iterdir() if path.name != "manifest.json"}
    append_pairs(more, store)
    found = load_pairs(store)
    assert_equal(found.select(slice(0, 20)), pairs)
    assert_equal(found.select(slice(20, None)), more)
    assert all((store / name).read_bytes() == content for name, content in before.items())
    append_pairs(more, store)
    assert len(load_pairs(store)) == 32


def test_other_segments_are_not_appended(pairs, store, make_trajectories):
    other = make_pairs(cut_segments(make_trajectories(9)), num_pairs=2)
    with pytest.raises(
        StoreError, match="holds other segments: all segments must have the same keys, dtypes and shapes"
    ):
        append_pairs(other, store)
    assert_equal(load_pairs(store), pairs)


def test_a_store_is_not_overwritten(pairs, store):
    with pytest.raises(StoreError, match="must not exist, a store is not overwritten; use append_pairs"):
        save_pairs(pairs, store)


@pytest.mark.parametrize("call", range(1, 5))
def test_a_write_that_is_cut_off_leaves_what_was_there(pairs, store, call, monkeypatch):
    calls = []

    def killed(path):
        calls.append(path)
        if len(calls) == call:
            raise KeyboardInterrupt

    monkeypatch.setattr("tesserl_storage.whole_files.sync", killed)
    with pytest.raises(KeyboardInterrupt):
        append_pairs(pairs, store)
    monkeypatch.undo()
    assert_equal(load_pairs(store), pairs)
    append_pairs(pairs, store)  # and the remains are in nobody's way
    assert len(load_pairs(store)) == 40


def test_a_first_write_that_is_cut_off_leaves_nothing(pairs, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(store_module, "write_manifest", killed)
    with pytest.raises(KeyboardInterrupt):
        save_pairs(pairs, tmp_path / "pairs")
    monkeypatch.undo()
    assert not (tmp_path / "pairs").exists()
    assert_equal(load_pairs(save_pairs(pairs, tmp_path / "pairs")), pairs)


def test_people_label_pairs_one_by_one_and_nothing_is_lost(unlabelled, tmp_path):
    path = save_pairs(unlabelled, tmp_path / "pairs")
    assert len(load_pairs(path)) == 0
    for pair, choice in enumerate(["first", "second", "tie", "skip", "first"]):
        append_label(path, pair, choice, source="anna")
    append_label(path, 4, "second", source="ben")  # the last one counts
    assert read_labels(path) == {
        0: ("first", "anna"), 1: ("second", "anna"), 2: ("tie", "anna"), 3: ("skip", "anna"), 4: ("second", "ben")
    }  # fmt: skip
    found = load_pairs(path)
    assert found.label.tolist() == [1.0, 1.0, 0.5, 1.0]
    assert found.source == ["anna", "anna", "anna", "ben"]
    candidates = load_pairs(path, unlabelled=True)
    assert len(candidates) == 10
    assert candidates.label.isnan().tolist() == [False, False, False, True, False, *[True] * 5]
    for number, swapped in ((0, False), (1, True), (2, False), (4, True)):
        sides = ("rejected", "chosen") if swapped else ("chosen", "rejected")
        assert (candidates[number]["chosen"] == unlabelled[number][sides[0]]).all()
    assert all("time" in json.loads(line) for line in (path / "labels.jsonl").read_text().splitlines())


def test_people_may_overrule_a_score(pairs, store):
    append_label(store, 1, "second", source="anna")
    found = load_pairs(store)
    assert (found[1]["chosen"] == pairs[1]["rejected"]).all()
    assert found.source[1] == "anna"
    assert found.margin[1] == -pairs.margin[1]
    assert_equal(found.select(slice(2, None)), pairs.select(slice(2, None)))
    assert found.label[0] == 0.5


def test_labels_that_cannot_be_are_refused(store):
    with pytest.raises(
        StoreError, match="a label must be one of first, second, tie, skip for a pair below 20, got 'left'"
    ):
        append_label(store, 3, "left", source="anna")
    with pytest.raises(StoreError, match="for a pair below 20, got 'tie' for 20"):
        append_label(store, 20, "tie", source="anna")
    assert not (store / "labels.jsonl").exists()


@pytest.mark.parametrize(
    "line",
    ['{"pair": 99, "choice": "tie", "source": "anna"}', '{"pair": 1, "choice": "left", "source": "anna"}', "[1]"],
)
def test_wrong_labels_are_named(line, store):
    (store / "labels.jsonl").write_text(line + "\n")
    with pytest.raises(
        StoreError, match=r"labels.jsonl:1: a (label must have a pair below 20|line must be one whole JSON)"
    ):
        load_pairs(store)


def redeclare(store, path):
    """Make the manifest agree with a file that was changed."""
    from tesserl_preference_data.files import describe

    manifest = json.loads((store / "manifest.json").read_text())
    for entry in manifest["files"]:
        if entry["name"] == path.name:
            entry.update(describe(path, entry["kind"], entry["count"]))
    (store / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("name", "value"),
    [("chosen", 999), ("rejected", -1), ("label", 0.3), ("margin", "large"), ("source", None), ("chosen", None)],
)
def test_a_pair_that_cannot_be_read_is_named(name, value, store):
    path = file_of(store, "pairs")
    lines = path.read_text().splitlines()
    lines[6] = json.dumps({**json.loads(lines[6]), name: value})
    path.write_text("\n".join(lines) + "\n")
    redeclare(store, path)
    with pytest.raises(StoreError, match=rf"{path.name}:7: a pair must have chosen and rejected in \[0, "):
        load_pairs(store)


@pytest.mark.parametrize("line", ["", "{", '{"chosen": 1}', "[]", "null"])
def test_a_line_that_is_no_pair_is_named(line, store):
    path = file_of(store, "pairs")
    lines = path.read_text().splitlines()
    lines[6] = line
    path.write_text("\n".join(lines) + "\n")
    redeclare(store, path)
    with pytest.raises(StoreError, match=rf"{path.name}:7: "):
        load_pairs(store)


@pytest.mark.parametrize("kind", ["segments", "pairs"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "missing; restore the file, or make the pairs again"),
        (lambda path: path.write_bytes(path.read_bytes()[:-10]), r"expected \d+ bytes, got \d+; restore the file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-2] + b"!\n"), "SHA-256 differs from the manifest's"),
    ],
)
def test_a_damaged_file_is_named(kind, damage, message, store):
    path = file_of(store, kind)
    damage(path)
    with pytest.raises(StoreError, match=f"{path.name}: {message}"):
        load_pairs(store)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("start"), "must have start, length, group and equally many steps of each key"),
        (
            lambda tensors: tensors.update({"steps/action": torch.zeros(2)}),
            r"must have start, .* equally many steps of each key",
        ),
        (lambda tensors: tensors["length"].add_(1000), r"must have segments within its \d+ steps, got others"),
    ],
)
def test_a_file_of_segments_that_makes_no_sense_is_named(change, message, store):
    path = file_of(store, "segments")
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)
    redeclare(store, path)
    with pytest.raises(StoreError, match=f"{path.name} {message}"):
        load_pairs(store)


def test_a_file_that_is_no_safetensors_is_named_and_never_unpickled(store):
    class Bomb:
        def __reduce__(self):
            return exec, ("raise RuntimeError('unpickled')",)

    path = file_of(store, "segments")
    torch.save({"steps/observation": torch.zeros(3), "bomb": Bomb()}, path)
    redeclare(store, path)
    with pytest.raises(StoreError, match=rf"{path.name} cannot be read: "):
        load_pairs(store)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"manifest.json cannot be read: .*; restore the file"),
        (
            '{"format": "zarr", "format_version": 1}',
            r"must be of format 'tesserl-preference-pairs', version 1, got \('zarr', 1\)",
        ),
        ('{"format": "tesserl-preference-pairs", "format_version": 2}', r"got \('tesserl-preference-pairs', 2\)"),
        ('{"format": "tesserl-preference-pairs", "format_version": 1, "files": []}', "must hold segments, got none"),
    ],
)
def test_a_manifest_that_is_not_ours_is_named(text, message, store):
    (store / "manifest.json").write_text(text)
    with pytest.raises(StoreError, match=message):
        load_pairs(store)


def test_a_directory_without_a_store_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"holds no pairs: .*manifest.json is missing; make a store with save_pairs"):
        load_pairs(tmp_path)


MEASURE = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
from tesserl_preference_data import load_pairs

pairs = load_pairs(sys.argv[1])
for batch in pairs.minibatches(64, generator=torch.Generator().manual_seed(0)):
    total = batch["chosen", "observation"].sum()
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["RssAnon"].split()[0]))
"""


def anonymous_megabytes(path, num_pairs):
    """Return the memory of a process that loaded a store of pairs of 50 steps and read it once."""
    shape = (num_pairs, 50)
    sides = [
        TensorDict({"observation": torch.randn(*shape, 4), "action": torch.zeros(shape, dtype=torch.int64)}, shape)
        for _ in range(2)
    ]
    save_pairs(PreferencePairs.from_segments(*sides), path)
    result = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    return int(result.stdout) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("few", "many", "limit"), [(500, 10_000, 10), pytest.param(1_000, 100_000, 50, marks=pytest.mark.soak)]
)
def test_anonymous_memory_hardly_grows_with_the_pairs_in_a_store(few, many, limit, tmp_path):
    small = anonymous_megabytes(tmp_path / "few", few)
    large = anonymous_megabytes(tmp_path / "many", many)
    size = sum(path.stat().st_size for path in (tmp_path / "many").iterdir()) / 2**20
    assert large - small < limit < size, f"{small:.1f} MB, {large:.1f} MB, store of {size:.1f} MB"
