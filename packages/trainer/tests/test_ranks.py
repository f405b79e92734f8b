"""Runs that several ranks train together: as one rank where that is promised, exact when resumed, never hanging."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from tesserl_trainer.cli import main
from tesserl_training.checkpoints.run_checkpoints import Checkpoints

from . import ranked
from .conftest import config_text
from .test_resume import LSTM, MEMMAP, NOISY, PRIORITIZED, SCALED, SPARSE, STATISTICS, TORCHRL, outcome

PATIENCE = 600.0
"""Seconds, on a machine that is busy."""


def free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def environment_of(rank: int, number: int, **more: str) -> dict[str, str]:
    """Return what ``torchrun`` tells a process."""
    told = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1"}
    return {**os.environ, "OMP_NUM_THREADS": "1", "RL_WARNINGS": "False", "PYTHONWARNINGS": "ignore", **told, **more}


def together(number: int, plan: list[tuple[str, dict]], directory: Path, **more: str) -> list[list]:
    """Return what every rank returned in each scenario of `ranked`: a list of ranks for each scenario."""
    directory.mkdir(parents=True, exist_ok=True)
    ports = free_ports(len(plan))
    numbered = [[port, name, arguments] for port, (name, arguments) in zip(ports, plan, strict=True)]
    (directory / "plan.json").write_text(json.dumps(numbered))
    command = [sys.executable, ranked.__file__, str(directory)]
    processes = [
        subprocess.Popen(
            command, cwd=directory, env=environment_of(rank, number, **more), stderr=subprocess.PIPE, text=True
        )
        for rank in range(number)
    ]
    try:
        said = [process.communicate(timeout=PATIENCE)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * number, "\n".join(said)
    lines = [(directory / f"{rank}.jsonl").read_text().splitlines() for rank in range(number)]
    (directory / "said.txt").write_text("\n".join(said))
    return [[json.loads(line) for line in of_ranks] for of_ranks in zip(*lines, strict=True)]


ENVIRONMENTS = {"num_envs: 3": "num_envs: 4", "num_minibatches: 3": "num_minibatches: 4"}
PPO = LSTM | SCALED | ENVIRONMENTS | {"num_minibatches: 4": "num_minibatches: 2\n  target_kl: 0.01"}


def written(directory: Path, algorithm: str, changes: dict[str, str]) -> Path:
    text = config_text("CartPole-v1", algorithm)
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    path = directory / f"{algorithm}.yaml"
    path.write_text(text)
    return path


FOUR = {"num_envs: 3": "num_envs: 4"}
IQN = PRIORITIZED | NOISY | SPARSE | STATISTICS | FOUR | {"batch_size: 9": "batch_size: 8"}
RATIO = {"  update_interval: 2\n": "", "capacity: 90": "capacity: 90, ratio: 1.5"}

CASES = {
    "ppo": ("ppo", ENVIRONMENTS | STATISTICS),
    "ppo-lstm": ("ppo", PPO),
    "iqn": ("iqn", IQN),
    "iqn-ratio": ("iqn", FOUR | RATIO | {"batch_size: 9": "batch_size: 8"}),
    "grpo": ("grpo", FOUR | STATISTICS),
    "dpo": ("dpo", FOUR | {"batch_size: 5": "batch_size: 6"}),
    "cpl": ("cpl", FOUR),
}

STORED = "{source: {kind: offline, path: STORE}, holdout_fraction: 0.2}"
ONLINE = "{source: {kind: online, num_groups: 1, group_size: 3, buffer_size: 8, num_epochs: 2}, holdout_fraction: 0.2}"
AS_PQN = {
    "algorithm: ppo\nppo:\n": "algorithm: pqn\npqn:\n  require_layer_norm: false\n",
    "  clip_epsilon: {kind: linear, knots: [[0, 0.3], [200, 0.1]]}\n": "",
}
RESET = {"  num_taus: 4": "  reset: {interval: 30}\n  num_taus: 4"}
RESAMPLE = {"  group_size: 4": "  zero_variance: {kind: resample, max_attempts: 3}\n  group_size: 4"}
MIXED = {"    kind: online": "    kind: both\n    path: STORE\n    offline_fraction: 0.5"}
OTHERS = {
    "pqn": ("ppo", ENVIRONMENTS | STATISTICS | AS_PQN),
    "ppo-torchrl": ("ppo", ENVIRONMENTS | TORCHRL),
    "grpo-resample": ("grpo", FOUR | RESAMPLE),
    "dpo-stored": ("dpo", {ONLINE: STORED, "batch_size: 5": "batch_size: 6"}),
    "cpl-mixed": ("cpl", FOUR | MIXED),
    "iqn-reset": ("iqn", FOUR | MEMMAP | RESET | {"batch_size: 9": "batch_size: 8"}),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of two ranks: whole, and stopped by a signal to rank 1 and resumed."""
    root, plan = tmp_path_factory.mktemp("runs"), []
    for name, (algorithm, changes) in CASES.items():
        place = root / name
        place.mkdir()
        path = written(place, algorithm, changes)
        plan += [
            ("train", {"arguments": [str(path), "--run-dir", str(place / "whole")]}),
            ("train", {"arguments": [str(path), "--run-dir", str(place / "halves")], "stop": [1, 110]}),
            ("train", {"arguments": ["--resume", str(place / "halves")]}),
        ]
    codes = together(2, plan, root)
    return root, dict(zip(CASES, zip(codes[::3], codes[1::3], codes[2::3], strict=True), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_a_stop_of_one_rank_stops_all_and_the_resumed_run_equals_the_whole(runs, case):
    root, codes = runs
    assert codes[case] == ([0, 0], [143, 143], [0, 0])
    whole = outcome(root / case / "whole")
    assert outcome(root / case / "halves") == whole
    assert whole["step"] >= 240


@pytest.mark.parametrize("case", CASES)
def test_the_weights_of_all_ranks_are_equal_and_recorded(runs, case):
    root, _ = runs
    paths = Checkpoints(root / case / "whole").paths()
    assert len(paths) >= 2
    for path in paths:
        recorded = json.loads((path / "state.json").read_text())["ranks"]
        assert recorded["number"] == 2
        assert len(recorded["weights"]) == 2
        assert len(set(recorded["weights"])) == 1


def test_the_record_has_the_episodes_of_all_ranks_once(runs):
    root, _ = runs
    metrics = outcome(root / "ppo" / "whole")["metrics"]
    state = json.loads((Checkpoints(root / "ppo" / "whole").latest() / "state.json").read_text())
    episodes = [value for _, name, value in metrics if name == "train/episodes"]
    assert episodes[-1] == state["counters"]["episodes"]
    assert len({(step, name) for step, name, _ in metrics}) == len(metrics)


def test_another_number_of_ranks_is_refused(runs, capsys):
    root, _ = runs
    run_dir = root / "ppo" / "whole"
    assert main(["train", "--resume", str(run_dir), "--set", "total_steps=400"]) == 1
    told = capsys.readouterr().err
    assert "2 ranks wrote it and one process cannot continue it exactly; continue it with 2 ranks: " in told
    assert f"torchrun --nproc-per-node 2 -m tesserl_trainer train --resume {run_dir}, or start a new run" in told


def test_only_train_has_ranks(monkeypatch, tmp_path, capsys):
    for name, value in environment_of(1, 2, MASTER_PORT="1").items():
        monkeypatch.setenv(name, value)
    assert main(["eval", str(tmp_path)]) == 2
    assert "eval: expected one process, got 2; start it without torchrun" in capsys.readouterr().err


@pytest.mark.soak
@pytest.mark.parametrize("case", OTHERS)
def test_other_runs_are_resumed_exactly_with_ranks(tmp_path, stores, case):
    path = written(tmp_path, *OTHERS[case])
    path.write_text(path.read_text().replace("STORE", str(stores / "CartPole-v1")))
    plan = [
        ("train", {"arguments": [str(path), "--run-dir", str(tmp_path / "whole")]}),
        ("train", {"arguments": [str(path), "--run-dir", str(tmp_path / "halves")], "stop": [1, 110]}),
        ("train", {"arguments": ["--resume", str(tmp_path / "halves")]}),
    ]
    assert together(2, plan, tmp_path / "plan") == [[0, 0], [143, 143], [0, 0]]
    assert outcome(tmp_path / "halves") == outcome(tmp_path / "whole")


@pytest.mark.soak
@pytest.mark.parametrize("half", [90, 130])
def test_an_evaluation_in_flight_is_resumed_exactly_with_ranks(tmp_path, half):
    changes = ENVIRONMENTS | {"evaluation: {interval: 60": "evaluation: {process: true, interval: 60"}
    path = written(tmp_path, "ppo", changes)
    plan = [
        ("train", {"arguments": [str(path), "--run-dir", str(tmp_path / "whole")]}),
        ("train", {"arguments": [str(path), "--run-dir", str(tmp_path / "halves")], "stop": [0, half]}),
        ("train", {"arguments": ["--resume", str(tmp_path / "halves")]}),
    ]
    assert together(2, plan, tmp_path / "plan") == [[0, 0], [143, 143], [0, 0]]
    assert outcome(tmp_path / "halves") == outcome(tmp_path / "whole")


def restarted(directory: Path, path: Path, *killed: str) -> tuple[int, str]:
    """Train below ``torchrun`` with one restart, in the current directory; return its exit code and messages."""
    script = Path(ranked.__file__).with_name("killed_rank.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    process = subprocess.Popen(
        [*command, str(script), *killed, "--", "train", str(path)],
        cwd=directory,
        env={**os.environ, "OMP_NUM_THREADS": "1", "RL_WARNINGS": "False", "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=PATIENCE)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
    return process.returncode, said


def restarted_equals_the_whole(root: Path, directory: Path, case: str, *killed: str) -> None:
    directory.mkdir()
    code, said = restarted(directory, root / case / f"{CASES[case][0]}.yaml", *killed)
    assert code == 0, said
    assert "-9" in said  # the killed rank
    assert outcome(directory / "runs" / "tiny") == outcome(root / case / "whole")
    assert [path.name for path in (directory / "runs").iterdir() if path.is_dir()] == ["tiny"]


def test_a_killed_rank_is_restarted_and_ends_like_the_undisturbed_run(runs, tmp_path):
    root, _ = runs
    restarted_equals_the_whole(root, tmp_path / "killed", "ppo", "1", "reduce", "25")


@pytest.mark.soak
def test_a_signal_to_torchrun_leaves_a_checkpoint_and_the_resumed_run_equals_the_whole(tmp_path):
    path = written(tmp_path, "ppo", ENVIRONMENTS | {"total_steps: 240": "total_steps: 2400"})
    code, said = restarted(tmp_path, path, "1", "terminate", "5")
    assert code != 0
    assert said.count("stopped by SIGTERM; continue with: torchrun --nproc-per-node=2 -m tesserl_trainer") == 2
    halves = tmp_path / "runs" / "tiny"
    assert 0 < json.loads((Checkpoints(halves).latest() / "manifest.json").read_text())["step"] < 2400
    plan = [
        ("train", {"arguments": ["--resume", str(halves)]}),
        ("train", {"arguments": [str(path), "--run-dir", str(tmp_path / "whole")]}),
    ]
    assert together(2, plan, tmp_path / "plan") == [[0, 0], [0, 0]]
    assert outcome(halves) == outcome(tmp_path / "whole")


@pytest.mark.soak
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("case", ["ppo-lstm", "iqn", "grpo", "dpo"])
def test_each_rank_can_be_killed_at_any_moment(runs, tmp_path, case, rank):
    root, _ = runs
    generator = np.random.default_rng([5, rank])
    moments = {0: ["reduce", "collect", "log", "checkpoint", "manifest", "pointer"], 1: ["reduce", "collect"]}
    for index in range(10):
        moment, number = str(generator.choice(moments[rank])), int(generator.integers(1, 5))
        restarted_equals_the_whole(root, tmp_path / str(index), case, str(rank), moment, str(number))


@pytest.mark.learn
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_two_ranks_balance_the_pole(tmp_path, seed):
    path = Path(__file__).parents[3] / "configs" / "ppo" / "cartpole.yaml"
    arguments = [str(path), "--set", f"seed={seed}", "--run-dir", str(tmp_path / "run")]
    assert together(2, [("train", {"arguments": arguments})], tmp_path) == [[0, 0]]
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert result["episodes"] == 100
    assert result["return_mean"] >= 475
