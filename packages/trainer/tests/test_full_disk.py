"""A disk that is full, while any command writes: one sentence, exit code 1, and nothing half-written."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tesserl_analysis.record import read_metrics
from tesserl_configs import load_config
from tesserl_preference_data import load_pairs
from tesserl_preference_data.trajectories import load_trajectories
from tesserl_trainer import train
from tesserl_trainer.algorithms.run import loggers_of
from tesserl_trainer.cli import main
from tesserl_training.checkpoints.checkpoint import load_checkpoint
from tesserl_training.checkpoints.run_checkpoints import Checkpoints
from tesserl_training.event_file import EventFile
from tesserl_training.logging import MetricsLog

from .conftest import config_text
from .full_disk import files_of_at_most
from .stores import write_trajectories

pytestmark = pytest.mark.kernel_free

TINY = ["total_steps=60", "logging.tensorboard=true"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """A finished run of 60 steps, by algorithm."""
    root = tmp_path_factory.mktemp("runs")
    found = {}
    for name in ("iqn", "ppo"):
        (root / f"{name}.yaml").write_text(config_text("CartPole-v1", name))
        found[name] = train(load_config(root / f"{name}.yaml", TINY), run_dir=root / name)
    return found


@pytest.fixture
def fails(capsys):
    """Runs a command with files of limited size and expects one sentence that names one of them."""

    def run(arguments: list[object], size: int, name: str) -> None:
        with files_of_at_most(size):
            code = main([str(argument) for argument in arguments])
        error = capsys.readouterr().err
        assert code == 1, error
        assert "Traceback" not in error
        last = error.splitlines()[-1]
        assert last.startswith("error: ")
        assert name in last
        assert "file too large; raise the limit" in last

    return run


def everything(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.parametrize(
    ("algorithm", "size", "name"),
    [("iqn", 500, "config.yaml"), ("iqn", 6_000, "step_"), ("ppo", 5_000, "step_"), ("iqn", 4_000, "replay")],
)
def test_training_on_a_full_disk_keeps_what_it_has_and_continues_later(runs, tmp_path, fails, algorithm, size, name):
    run = shutil.copytree(runs[algorithm], tmp_path / "run")
    more = ["--set", "total_steps=200", "--set", "logging.tensorboard=false"]
    fails(["train", "--resume", run, *more], size, name)
    assert not [path for path in run.rglob("*") if path.name.endswith(".partial")]
    latest = Checkpoints(run).latest()
    assert load_checkpoint(latest).step >= 60
    assert main(["train", "--resume", str(run), *more]) == 0
    last = load_checkpoint(Checkpoints(run).latest()).step
    assert last >= 200
    assert [row[0] for row in read_metrics(run / "metrics.csv") if row[1] == "train/updates"][-1] == last


def test_a_new_training_on_a_full_disk_leaves_no_checkpoint(tmp_path, fails):
    (tmp_path / "tiny.yaml").write_text(config_text("CartPole-v1", "ppo"))
    fails(["train", tmp_path / "tiny.yaml", "--run-dir", tmp_path / "run"], 5_000, "step_")
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == []


def test_metrics_on_a_full_disk_are_whole_lines(tmp_path):
    log = MetricsLog(tmp_path)
    log.open()
    log.log(10, {"a": 1.0})
    before = log.path.read_bytes()
    with files_of_at_most(len(before) + 10), pytest.raises(OSError, match=r"metrics.csv"):
        log.log(30, {"a": 3.0, "b": 4.0})
    assert log.path.read_bytes() == before
    log.log(60, {"a": 5.0})
    log.close()
    assert read_metrics(log.path)[-1][:3] == (60, "a", 5.0)


def test_events_on_a_full_disk_are_whole(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventFile(tmp_path)
    board.log(10, {"a": 1.0})
    event_file = next(tmp_path.iterdir())
    before = event_file.read_bytes()
    with files_of_at_most(len(before) + 5), pytest.raises(OSError, match=r"tfevents"):
        board.log(30, {"c": 3.0})
    assert event_file.read_bytes() == before
    board.log(60, {"a": 5.0})
    board.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("a")] == [(10, 1.0), (60, 5.0)]


def test_resumed_events_take_the_place_of_those_after_the_checkpoint(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tmp_path / "tiny.yaml").write_text(config_text("CartPole-v1", "ppo"))
    config = load_config(tmp_path / "tiny.yaml", ["logging={tensorboard: true}"])
    for resumed in (None, 20):
        log = MetricsLog(tmp_path, loggers_of(config, tmp_path))
        log.open(resume_step=resumed)
        for step in range(10, 41, 10) if resumed is None else (30,):
            log.log(step, {"a": float(step) if resumed is None else 7.0})
        log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("a")] == [(10, 10.0), (20, 20.0), (30, 7.0)]


def test_a_collection_on_a_full_disk_leaves_no_store(runs, tmp_path, fails):
    fails(["collect", runs["ppo"], "--out", tmp_path / "store", "--episodes", 5], 1_000, "steps-00000.safetensors")
    assert not (tmp_path / "store").exists()


def test_a_collection_on_a_full_disk_leaves_the_store_as_it_was(runs, tmp_path, fails):
    arguments = ["collect", runs["ppo"], "--out", tmp_path / "store", "--episodes", 2]
    assert main(list(map(str, arguments))) == 0
    before = everything(tmp_path / "store")
    for size, name in ((500, "steps-00002"), (len(before["manifest.json"]) + 10, "manifest.json")):
        fails(arguments, size, name if size == 500 else "store")
        assert everything(tmp_path / "store") == before
    assert len(load_trajectories(tmp_path / "store")) == 2


def test_pairs_on_a_full_disk_leave_no_store(tmp_path, fails):
    store = write_trajectories(tmp_path / "episodes", [4, 5, 6], frames=False)
    fails(["pairs", "make", store, "--out", tmp_path / "pairs"], 200, "segments-00000.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["episodes"]
    assert main(["pairs", "make", str(store), "--out", str(tmp_path / "pairs")]) == 0
    assert len(load_pairs(tmp_path / "pairs")) == 3


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["export", "RUN", "--format", "pt2", "--output", "OUT"], "policy.pt2"),
        (["compare", "RUN", "--json", "OUT"], "compared.json"),
        (["compare", "RUN", "--png", "OUT"], "compared.png"),
        (["observe", "CONFIG", "--out", "OUT"], "seen.png"),
    ],
)
def test_a_file_on_a_full_disk_is_not_there(runs, tmp_path, fails, command, name):
    out = tmp_path / name
    places = {"RUN": runs["iqn"], "CONFIG": runs["iqn"] / "config.yaml", "OUT": out}
    fails([places.get(word, word) for word in command], 300, name)
    assert list(tmp_path.iterdir()) == []
    out.write_text("an earlier one")  # and what was there stays
    more = ["--overwrite"] if command[0] == "export" else []
    fails([*(places.get(word, word) for word in command), *more], 300, name)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["an earlier one"]


def test_cloning_on_a_full_disk_is_one_sentence(tmp_path, fails):
    (tmp_path / "tiny.yaml").write_text(config_text("CartPole-v1", "ppo"))
    arguments = ["collect", tmp_path / "tiny.yaml", "--random", "--episodes", 3, "--out", tmp_path / "store"]
    assert main(list(map(str, arguments))) == 0
    clone = ["pretrain", "bc", tmp_path / "tiny.yaml", "--trajectories", tmp_path / "store", "--updates", 60]
    fails([*clone, "--set", "evaluation.interval=60", "--run-dir", tmp_path / "run"], 4_000, "step_")


def test_a_sweep_on_a_full_disk_is_one_sentence(tmp_path, fails):
    (tmp_path / "tiny.yaml").write_text(config_text("CartPole-v1", "ppo"))
    (tmp_path / "s.yaml").write_text("config: tiny.yaml\nseeds: [1]\nvariants: {a: {}}\n")
    fails(["sweep", tmp_path / "s.yaml", "--runs", tmp_path / "runs"], 10, "sweep.json")
    assert not list((tmp_path / "runs").rglob("*.partial"))


def test_output_that_cannot_be_written_is_one_sentence(runs):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    command = [sys.executable, "-m", "tesserl_trainer.cli", "config", "show", str(runs["ppo"] / "config.yaml")]
    with Path("/dev/full").open("w") as full:
        buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=buffered)
    assert result.returncode == 1
    assert result.stderr.startswith("error: no space left on device; free room there")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_every_file_of_a_run_and_a_store_gets_the_mode_of_the_umask(tmp_path, umask, mode):
    (tmp_path / "tiny.yaml").write_text(config_text("CartPole-v1", "iqn"))
    before = os.umask(umask)
    try:
        train(load_config(tmp_path / "tiny.yaml", [*TINY, "replay.storage=memmap"]), run_dir=tmp_path / "run")
        write_trajectories(tmp_path / "store", [4, 2], frames=False)
    finally:
        os.umask(before)
    files = [path for place in ("run", "store") for path in (tmp_path / place).rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".safetensors", ".json", ".jsonl", ".csv", ".png", ".yaml"}
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in files} == {path.name: mode for path in files}
