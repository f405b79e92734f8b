"""Runs that several ranks train together: as one rank where that is promised, exact when resumed, never hanging."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from tesserl_configs import ConfigError, load_config
from tesserl_environments import worker_seeds
from tesserl_trainer.algorithms.sharing import part_of
from tesserl_trainer.checkpoints.run_checkpoints import Checkpoints
from tesserl_trainer.cli import main
from tesserl_trainer.ranks.group import RankError, Ranks
from tesserl_trainer.ranks.joining import joined
from tesserl_trainer.running.pretrain import pretrain_bc

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


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Results of the small scenarios on two ranks, which share two processes."""
    plan = [
        ("gradients", {"numbers": [12, 12], "minibatches": 1}),
        ("gradients", {"numbers": [12, 12], "minibatches": 3}),
        ("gradients", {"numbers": [5, 11], "minibatches": 2}),
        ("gradients", {"numbers": [2, 14], "minibatches": 4}),
        ("statistics", {}),
        ("agreement", {}),
        *(("failures", {"kind": kind}) for kind in ("weights", "first", "other", "absent")),
        ("sliced", {"number": 12, "minibatches": 2}),
        ("sliced", {"number": 7, "minibatches": 5}),
    ]
    directory = tmp_path_factory.mktemp("ranks")
    return together(2, plan, directory, TESSERL_RANKS_TIMEOUT="5")


@pytest.mark.parametrize("index", range(4), ids=["whole", "minibatches", "unequal", "fewer-rows-than-minibatches"])
def test_gradients_of_two_ranks_are_those_of_one_on_the_whole_batch(small, index):
    for differences in small[index]:
        assert len(differences) >= 7
        assert max(differences) < 1e-12


@pytest.mark.parametrize("index", [10, 11], ids=["slices", "fewer-rows-than-ranks"])
def test_gradients_of_slices_are_those_of_the_whole_batch(small, index):
    for differences in small[index]:
        assert len(differences) >= 8
        assert max(differences) < 1e-12


def test_statistics_are_those_of_what_all_ranks_have_seen(small):
    for difference, same, count in small[4]:
        assert difference < 1e-9  # of features around 1000
        assert (same, count) == (1.0, 0.0)


def test_ranks_agree(small):
    first, second = small[5]
    for untouched, drawn, total, some, every, result, *_ in (first, second):
        assert untouched
        assert len(set(drawn)) == 2
        assert (total, some, every, result) == (3.0, True, False, ["of rank 0", 0])
    assert first[1] == second[1]
    assert sorted(first[6] + second[6]) == [0, 1, 2]
    assert sorted([first[7], second[7]]) == [0, 1]


def test_other_weights_are_an_error_that_names_the_ranks(small):
    for message in small[6]:
        assert "at step 1,200 the networks of rank 1 are not those of rank 0" in message


def test_an_error_of_rank_0_reaches_all(small):
    assert "invalid literal" in small[7][0]
    assert "rank 0" in small[7][1]
    assert "failed while counting: invalid literal" in small[7][1]


def test_the_error_of_a_rank_is_told_to_the_others(small):
    waiting, failed = small[8]
    assert failed == "rank 1 cannot go on"
    assert "rank 0: a sum failed" in waiting
    assert "failed: rank 1 cannot go on" in waiting


def test_a_rank_that_stays_away_is_named_after_the_timeout(small):
    waiting, _ = small[9]
    assert "rank 0: a sum failed after" in waiting
    assert "no answer from rank 1" in waiting


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
    assert main(["train", "--resume", str(root / "ppo" / "whole"), "--set", "total_steps=400"]) == 1
    assert "2 ranks wrote it and one process cannot continue it exactly" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("algorithm", "changes", "message"),
    [
        (
            "ppo",
            {},
            "environment.num_envs: expected a multiple of the number of ranks, 2, got 3; write 4, or start another "
            "number of ranks",
        ),
        (
            "ppo",
            {
                "num_envs: 3}": "num_envs: 2}\ncollectors: {kind: process, workers: 2}",
                "num_minibatches: 3": "num_minibatches: 2",
            },
            "collectors: expected kind local with 2 ranks, each of which collects in its own process, got process; "
            "leave it out",
        ),
        (
            "iqn",
            {"num_envs: 3": "num_envs: 2"},
            "iqn.batch_size: expected a multiple of the number of ranks, 2, got 9; write 10, or start another number "
            "of ranks",
        ),
        (
            "iqn",
            {"num_envs: 3": "num_envs: 2", "batch_size: 9": "batch_size: 8", "capacity: 90": "capacity: 91"},
            "replay.capacity: expected a multiple of the number of ranks, 2, got 91; write 92, or start another number "
            "of ranks",
        ),
        (
            "dpo",
            {"num_envs: 3": "num_envs: 2"},
            "dpo.batch_size: expected a multiple of the number of ranks, 2, got 5; write 6, or start another number of "
            "ranks",
        ),
    ],
)
def test_what_ranks_cannot_share_is_refused(tmp_path, algorithm, changes, message):
    config = load_config(written(tmp_path, algorithm, changes))
    with pytest.raises(ConfigError) as error:
        part_of(config, Ranks(0, 2), 0)
    assert str(error.value) == message


def test_a_rank_that_does_not_join_is_named(monkeypatch):
    (port,) = free_ports(1)
    told = environment_of(0, 2, MASTER_PORT=str(port), TESSERL_RANKS_JOIN_TIMEOUT="2")
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TESSERL_RANKS_JOIN_TIMEOUT"):
        monkeypatch.setenv(name, told[name])
    with pytest.raises(RankError, match=rf"ranks: not all of 2 ranks met at 127.0.0.1:{port} within 2 s"):
        joined("cpu").__enter__()


def test_a_time_limit_must_be_a_number(monkeypatch):
    for name, value in environment_of(0, 2, MASTER_PORT="1", TESSERL_RANKS_TIMEOUT="soon").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="TESSERL_RANKS_TIMEOUT: expected a positive number of seconds, got 'soon'"):
        joined("cpu").__enter__()


def test_a_rank_has_its_part_of_the_numbers(tmp_path):
    changes = {"num_envs: 3": "num_envs: 4", "batch_size: 9": "batch_size: 8"}
    config = load_config(written(tmp_path, "iqn", changes))
    part = part_of(config, Ranks(1, 2), 1)
    assert (part.environment.num_envs, part.iqn.batch_size, part.replay.capacity) == (2, 4, 45)
    assert part_of(config, Ranks(), 0) is config


def test_pretraining_has_no_ranks(monkeypatch, tmp_path):
    for name, value in environment_of(0, 2, MASTER_PORT="1").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="pretrain: expected one process, got 2; start it without torchrun"):
        pretrain_bc(tmp_path / "none.yaml", pairs=tmp_path, updates=5)


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
@pytest.mark.parametrize("case", ["ppo-lstm", "iqn", "grpo", "dpo"])
def test_each_rank_can_be_killed_at_any_moment(runs, tmp_path, case):
    root, _ = runs
    generator = np.random.default_rng(5)
    moments = {0: ["reduce", "collect", "log", "checkpoint", "manifest", "pointer"], 1: ["reduce", "collect"]}
    for index in range(10):
        rank = index % 2
        moment, number = str(generator.choice(moments[rank])), int(generator.integers(1, 5))
        restarted_equals_the_whole(root, tmp_path / str(index), case, str(rank), moment, str(number))


def test_environments_have_the_same_seeds_with_any_number_of_ranks():
    def seeds(number, first):
        environments = SyncVectorEnv([lambda: gym.make("CartPole-v1")] * number)
        try:
            return worker_seeds(5, environments, first=first)
        finally:
            environments.close()

    assert seeds(2, 0) + seeds(2, 2) == seeds(4, 0)


@pytest.mark.learn
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_two_ranks_balance_the_pole(tmp_path, seed):
    path = Path(__file__).parents[3] / "configs" / "ppo" / "cartpole.yaml"
    arguments = [str(path), "--set", f"seed={seed}", "--run-dir", str(tmp_path / "run")]
    assert together(2, [("train", {"arguments": arguments})], tmp_path) == [[0, 0]]
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert result["episodes"] == 100
    assert result["return_mean"] >= 475
