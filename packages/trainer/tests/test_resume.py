"""A run that was interrupted, in whatever way, ends exactly like one that was not."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tesserl_analysis.record import read_metrics
from tesserl_configs import load_config
from tesserl_storage.errors import StorageError
from tesserl_trainer import train
from tesserl_training.checkpoints.checkpoint import load_networks
from tesserl_training.checkpoints.run_checkpoints import Checkpoints
from tesserl_training.replay_segments import Segments

from .conftest import ALGORITHMS, TASKS, config_text

PRIORITIZED = {"{kind: uniform, capacity: 90": "{kind: prioritized, capacity: 90"}
NOISY = {"heads: {hidden_sizes: [11]}": "heads: {hidden_sizes: [11], noisy: true, dueling: true}"}
MUNCHAUSEN = {"  num_taus: 4": "  munchausen: {alpha: 0.9}\n  num_taus: 4"}
BOLTZMANN = {"{kind: epsilon,": "{kind: boltzmann, temperature: 0.1,"}
CHANNELS_LAST = {"name: tiny": "name: tiny\nchannels_last: true"}
SPARSE = {"collect_steps: 1": "collect_steps: 5", "update_interval: 2": "update_interval: 4"}
MEMMAP = {"capacity: 90": "storage: memmap, capacity: 90"}
ASYNC = {"num_envs: 3": "num_envs: 3, vectorization: async"}
NORMALIZED = {"num_envs: 3": "num_envs: 3, wrappers: [{kind: normalize_reward}]"}
STATISTICS = {"hidden_sizes: [5]}": "hidden_sizes: [5], normalization: {kind: running}}"}
SCALED = {"  num_steps: 10": "  reward_scaling: {kind: running}\n  num_steps: 10"}
SEPARATE = {"  num_steps: 10": "  shared_body: false\n  num_steps: 10"}
TORCHRL = {"  num_steps: 10": "  loss: torchrl\n  num_steps: 10"}
TANH = {"  num_steps: 10": "  distribution: {kind: tanh_normal}\n  num_steps: 10"}
SHARED = {"heads: {hidden_sizes: [11]}": "heads: {hidden_sizes: [], shared_hidden_sizes: [9, 7]}"}
HIDDEN = {"heads: {hidden_sizes: [11]}": "heads: {hidden_sizes: [9, 7]}"}  # in each head
VISITED = {"  group_size: 4": "  starts: {kind: visited}\n  group_size: 4"}
LSTM = {"heads: {hidden_sizes: [11]}": "heads: {hidden_sizes: [11]}\n  memory: {kind: lstm, hidden_size: 7}"}


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch):
    monkeypatch.setattr(Segments.__init__, "__kwdefaults__", {"size": 32})


def outcome(run_dir: Path) -> dict:
    """Everything that two equal runs have in common: every byte of the last checkpoint, and the metrics but times."""
    manifest = json.loads((Checkpoints(run_dir).latest() / "manifest.json").read_text())
    metrics = [row[:3] for row in read_metrics(run_dir / "metrics.csv") if not row[1].startswith("time/")]
    best = json.loads((run_dir / "checkpoints" / "best.json").read_text())
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    for document in (manifest, best, evaluation):  # another id in every run, and times in the record
        for name in ("run_id", "sha256", "record"):
            document.pop(name, None)
    return {**manifest, "metrics": metrics, "pointer": best, "evaluation": evaluation}


def halves_equal_the_whole(config, tmp_path: Path, half: int) -> dict:
    whole = outcome(train(config, run_dir=tmp_path / "whole"))
    first = config.model_copy(update={"total_steps": half})
    run_dir = train(first, run_dir=tmp_path / "halves")
    assert outcome(run_dir)["step"] == half
    train(config, run_dir=run_dir, resume=True)
    halves = outcome(run_dir)
    assert whole == halves
    return whole


@pytest.mark.parametrize("environment", list(TASKS))
def test_n_steps_and_n_steps_are_two_n_steps(write_config, tmp_path, environment):
    config = load_config(write_config(environment))
    result = halves_equal_the_whole(config, tmp_path, 120)
    assert result["step"] == 240
    assert {name for _, name, _ in result["metrics"]} >= {"train/loss", "evaluation/return", "schedule/epsilon"}


@pytest.mark.parametrize(
    "changes",
    [PRIORITIZED | NOISY, MUNCHAUSEN | BOLTZMANN, SPARSE | MEMMAP | NORMALIZED, ASYNC],
    ids=["prioritized-noisy-dueling", "munchausen-boltzmann", "sparse-memmap-normalized", "async"],
)
def test_it_holds_with_every_part_that_has_a_state(write_config, tmp_path, changes):
    halves_equal_the_whole(load_config(write_config(**changes)), tmp_path, 120)


@pytest.mark.parametrize(
    ("environment", "changes"),
    [
        ("CartPole-v1", SEPARATE),
        ("CartPole-v1", LSTM | ASYNC),
        ("CartPole-v1", TORCHRL),
        ("Pendulum-v1", STATISTICS | SCALED),
        ("Pendulum-v1", TANH | NORMALIZED),
        ("LunarLander-v3", STATISTICS),
        ("MinAtar/Breakout-v1", {}),
        ("MinAtar/Breakout-v1", CHANNELS_LAST),
    ],
    ids=[
        "separate",
        "lstm-async",
        "torchrl",
        "statistics-scaled",
        "tanh-normalized",
        "lunarlander",
        "minatar",
        "channels-last",
    ],
)
def test_it_holds_for_ppo(write_config, tmp_path, environment, changes):
    result = halves_equal_the_whole(load_config(write_config(environment, "ppo", **changes)), tmp_path, 120)
    assert result["step"] == 240
    assert {name for _, name, _ in result["metrics"]} >= {"train/loss_objective", "schedule/clip_epsilon"}


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "iqn"])
def test_it_holds_with_hidden_layers_that_policy_and_value_share(write_config, tmp_path, algorithm):
    config = load_config(write_config(algorithm=algorithm, **SHARED))
    run_dir = train(config, run_dir=tmp_path / "run")
    whole = outcome(run_dir)
    kept = sorted((run_dir / "checkpoints").glob("step_*"))[-2]
    assert any(".shared." in f".{name}" for name in load_networks(kept))
    (run_dir / "evaluation.json").unlink()
    train(config, run_dir=run_dir, resume=kept.name)
    assert outcome(run_dir) == whole
    plain = load_config(write_config(algorithm=algorithm, **HIDDEN))
    assert outcome(train(plain, run_dir=tmp_path / "plain"))["metrics"] != whole["metrics"]  # they are learned with


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_interrupting_between_intervals_changes_nothing(write_config, tmp_path, algorithm):
    """The checkpoint falls between two log lines and inside windows, averages and episodes."""
    config = load_config(write_config(algorithm=algorithm))
    whole = outcome(train(config, run_dir=tmp_path / "whole"))
    run_dir = train(config, run_dir=tmp_path / "again")
    kept = Checkpoints(run_dir).paths()[-2]
    (run_dir / "evaluation.json").unlink()
    train(config, run_dir=run_dir, resume=kept.name)
    assert outcome(run_dir) == whole


@pytest.mark.parametrize("environment", ["CartPole-v1", "LunarLander-v3", "Pendulum-v1"])
def test_it_holds_for_groups_of_visited_states(write_config, tmp_path, environment):
    """Each half has several iterations, so that the second one begins with trajectories of the first."""
    changes = VISITED | {"num_groups: 2": "num_groups: 3\n  max_length: 15", "total_steps: 240": "total_steps: 700"}
    config = load_config(write_config(environment, "grpo", **changes))
    whole = outcome(train(config, run_dir=tmp_path / "whole"))
    run_dir = train(config, run_dir=tmp_path / "again")
    assert len(Checkpoints(run_dir).paths()) >= 2
    kept = Checkpoints(run_dir).paths()[-2]
    (run_dir / "evaluation.json").unlink()
    train(config, run_dir=run_dir, resume=kept.name)
    assert outcome(run_dir) == whole
    assert max(value for _, name, value in whole["metrics"] if name == "train/replayed_fraction") > 0


def test_a_killed_run_of_visited_states_ends_like_one_that_was_not(write_config, tmp_path):
    config = write_config(algorithm="grpo", **VISITED, **{"total_steps: 240": "total_steps: 700"})
    assert run("train", str(config), "--run-dir", str(tmp_path / "whole")) == 0
    killed_and_resumed(config, tmp_path / "killed", "collect", 12)
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


def test_environments_that_cannot_be_restored_are_reset_and_it_is_said(write_config, tmp_path, capfd):
    changes = {"num_envs: 3": "num_envs: 3, vectorization: vector_entry_point"}
    config = load_config(write_config(**changes))
    run_dir = train(config.model_copy(update={"total_steps": 120}), run_dir=tmp_path / "run")
    assert json.loads((Checkpoints(run_dir).latest() / "state.json").read_text())["exact"] is True
    train(config, run_dir=run_dir, resume=True)
    assert capfd.readouterr().err.count("warning: the environments could not be put back") == 1
    assert json.loads((Checkpoints(run_dir).latest() / "state.json").read_text())["exact"] is False


def test_a_damaged_checkpoint_is_an_error_and_changes_nothing(write_config, tmp_path):
    config = load_config(write_config())
    run_dir = train(config, run_dir=tmp_path / "run")
    latest = Checkpoints(run_dir).latest()
    path = latest / "optimizer.safetensors"
    content = path.read_bytes()
    before = {p: p.stat().st_mtime_ns for p in run_dir.rglob("*") if p.is_file() and p != path}
    for damaged in (content[: len(content) // 2], content[:-1] + bytes([content[-1] ^ 1]), b"\x80\x04pickle"):
        path.write_bytes(damaged)
        with pytest.raises(StorageError, match=r"optimizer\.safetensors"):
            train(config, run_dir=run_dir, resume=True)
    assert {p: p.stat().st_mtime_ns for p in run_dir.rglob("*") if p.is_file() and p != path} == before


def test_a_damaged_segment_is_an_error(write_config, tmp_path):
    config = load_config(write_config())
    run_dir = train(config, run_dir=tmp_path / "run")
    segment = max((run_dir / "replay").iterdir())
    segment.write_bytes(segment.read_bytes()[:-1])
    with pytest.raises(StorageError, match=f"{segment.name}: expected .* bytes"):
        train(config.model_copy(update={"total_steps": 270}), run_dir=run_dir, resume=True)


# --- processes that are really killed -----------------------------------------------------------------------------

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "RL_WARNINGS": "False", "PYTHONWARNINGS": "ignore"}


def run(*arguments: str, moment: str = os.devnull, number: int = 0, check: bool = True) -> int:
    script = Path(__file__).with_name("killed_run.py")
    command = [sys.executable, str(script), moment, str(number), "--", *arguments]
    process = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert not check or process.returncode in (0, -signal.SIGKILL), process.stderr
    return process.returncode


def killed_and_resumed(config: Path, run_dir: Path, moment: str, number: int) -> None:
    code = run("train", str(config), "--run-dir", str(run_dir), moment=moment, number=number)
    assert code == -signal.SIGKILL
    if list((run_dir / "checkpoints").glob("step_*")):
        assert run("train", "--resume", str(run_dir)) == 0
    else:  # killed before its first checkpoint: resuming says so, and the run starts again elsewhere
        assert run("train", "--resume", str(run_dir), check=False) == 2
        run_dir.rename(run_dir.with_name("dead"))
        assert run("train", str(config), "--run-dir", str(run_dir)) == 0


@pytest.fixture(scope="module")
def uninterrupted(request, tmp_path_factory) -> dict:
    """The outcome of the tiny CartPole run of an algorithm in a process of its own."""
    directory = tmp_path_factory.mktemp("uninterrupted")
    config = config_text("CartPole-v1", request.param)
    (directory / "tiny.yaml").write_text(config)
    assert run("train", str(directory / "tiny.yaml"), "--run-dir", str(directory / "run")) == 0
    return {"algorithm": request.param, "outcome": outcome(directory / "run")}


@pytest.mark.parametrize(
    ("uninterrupted", "moment", "number"),
    [("iqn", "collect", 55), ("iqn", "checkpoint", 8), ("iqn", "segment", 4), ("ppo", "collect", 6), ("ppo", "log", 5)],
    indirect=["uninterrupted"],
)
def test_a_killed_run_ends_like_one_that_was_not(write_config, tmp_path, uninterrupted, moment, number):
    config = write_config(algorithm=uninterrupted["algorithm"])
    killed_and_resumed(config, tmp_path / "killed", moment, number)
    assert outcome(tmp_path / "killed") == uninterrupted["outcome"]


@pytest.mark.soak
@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
@pytest.mark.parametrize("environment", list(TASKS))
def test_twenty_seeded_kills(write_config, tmp_path, environment, algorithm):
    config, counts = write_config(environment, algorithm), tmp_path / "counts.json"
    assert run("train", str(config), "--run-dir", str(tmp_path / "whole"), moment=str(counts)) == 0
    whole = outcome(tmp_path / "whole")
    generator = random.Random(environment)
    moments = json.loads(counts.read_text())
    assert len(moments) == (6 if algorithm == "iqn" else 5)
    for kill in range(20):
        moment = list(moments)[kill % len(moments)]
        run_dir = tmp_path / f"killed-{kill}" / "run"
        run_dir.parent.mkdir()
        killed_and_resumed(config, run_dir, moment, generator.randint(1, moments[moment]))
        assert outcome(run_dir) == whole, (kill, moment)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_checkpoint_and_its_exit_code(write_config, tmp_path, number, code):
    config, run_dir = write_config(**{"total_steps: 240": "total_steps: 1000000"}), tmp_path / "run"
    command = [sys.executable, "-m", "tesserl_trainer.cli", "train", str(config), "--run-dir", str(run_dir)]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (run_dir / "checkpoints" / "latest.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == code
    assert f"continue with: tesserl train --resume {run_dir}" in stderr
    assert "Traceback" not in stderr
    step = json.loads((Checkpoints(run_dir).latest() / "manifest.json").read_text())["step"]
    done = (step // 240 + 1) * 240
    assert run("train", "--resume", str(run_dir), "--set", f"total_steps={done}") == 0
    assert json.loads((Checkpoints(run_dir).latest() / "manifest.json").read_text())["step"] == done
