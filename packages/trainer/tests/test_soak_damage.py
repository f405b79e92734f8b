"""Hundreds of damaged runs: a resume and an evaluation give the same result as before, or an error of one sentence."""

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tesserl_analysis.record import read_metrics
from tesserl_configs import load_config
from tesserl_trainer import train
from tesserl_trainer.cli import main
from tesserl_training.checkpoints.checkpoint import read_manifest
from tesserl_training.checkpoints.run_checkpoints import Checkpoints
from tesserl_training.checkpoints.run_identity import read_identity
from tesserl_training.replay_segments import Segments

from .conftest import config_text
from .damages import DAMAGES, FORGED
from .test_resume import PRIORITIZED

RUNS = int(os.environ.get("TESSERL_DAMAGES", "100"))
"""Damaged runs of each algorithm."""

TIMEOUT = 120.0
"""Seconds after which a command counts as hanging."""

ALGORITHMS = {
    "iqn": ("iqn", {}),
    "iqn-prioritized": ("iqn", PRIORITIZED),
    "ppo": ("ppo", {}),
    "grpo": ("grpo", {}),
    "dpo": ("dpo", {}),
    "cpl": ("cpl", {}),
}


def forked(arguments: list[str], log: Path) -> tuple[int | None, str]:
    """Run a command in a forked process; returns its exit code (None: it hung) and what it wrote to stderr."""
    child = os.fork()
    if child == 0:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, 2)
        os.dup2(os.open(f"{log}.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 1)
        try:
            code = main(arguments)
        except BaseException:  # noqa: BLE001 - nothing may return into the test of the parent
            code = 99
        os._exit(code)
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status), log.read_text(errors="replace")
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None, log.read_text(errors="replace")


def result_of(run: Path) -> dict:
    """Return what two equal runs have in common."""
    manifest = read_manifest(Checkpoints(run).paths()[-1])
    evaluation = json.loads((run / "evaluation.json").read_text())
    for document in (manifest, evaluation):
        for name in ("run_id", "sha256", "record"):
            document.pop(name, None)
    metrics = [row[:3] for row in read_metrics(run / "metrics.csv") if not row[1].startswith("time/")]
    return {**manifest, "metrics": metrics, "evaluation": evaluation}


def judge(code: int | None, error: str, *, same: bool, forged: bool) -> str:
    """Return the outcome of a command; those that must not be are in capitals."""
    if code is None:
        return "HANG"
    if "Traceback" in error:
        return "TRACEBACK"
    if code in (1, 2):
        return "refused" if "error: " in error else "NO MESSAGE"
    if code != 0:
        return f"EXIT {code}"
    if same:
        return "same result"
    if "warning: " in error or "note: " in error:
        return "another result, with a warning"
    return "forged" if forged else "SILENTLY DIFFERENT"


@pytest.mark.soak
@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_damaged_runs_are_refused_or_give_the_same_result(tmp_path, monkeypatch, name):
    monkeypatch.setattr(Segments.__init__, "__kwdefaults__", {"size": 32})
    algorithm, changes = ALGORITHMS[name]
    text = config_text("CartPole-v1", algorithm)
    for old, new in changes.items():
        text = text.replace(old, new)
    (tmp_path / "tiny.yaml").write_text(text)
    run, other = tmp_path / "first", tmp_path / "other"
    for seed, directory in ((3, run), (4, other)):
        train(load_config(tmp_path / "tiny.yaml", [f"seed={seed}", "total_steps=160"]), run_dir=directory)
    log, evaluation = tmp_path / "log", ["eval", "--episodes", "2", "--set", "evaluation.num_envs=2"]
    resume = ["--set", "total_steps=240"]
    whole = shutil.copytree(run, tmp_path / "whole")
    code, error = forked([*evaluation, str(run)], log)
    assert code == 0, error
    played = Path(f"{log}.out").read_text()
    code, error = forked(["train", "--resume", str(whole), *resume], log)
    assert code == 0, error
    expected = result_of(whole)
    counts: Counter[str] = Counter()
    wrong = []
    for number in range(RUNS):
        draw = random.Random(f"{name}-{number}")
        kind = list(DAMAGES)[number % len(DAMAGES)]
        damaged = shutil.copytree(run, tmp_path / "damaged")
        what = DAMAGES[kind](draw, damaged, other)
        code, error = forked([*evaluation, str(damaged)], log)
        same = code == 0 and Path(f"{log}.out").read_text() == played
        outcomes = {"eval": (judge(code, error, same=same, forged=kind in FORGED), error)}
        code, error = forked(["train", "--resume", str(damaged), *resume], log)
        same = code == 0 and read_identity(damaged) is not None and result_of(damaged) == expected
        outcomes["resume"] = (judge(code, error, same=same, forged=kind in FORGED), error)
        for command, (outcome, error) in outcomes.items():
            counts[f"{kind}, {command}: {outcome}"] += 1
            if outcome.isupper() or outcome.startswith("EXIT"):
                wrong.append(f"{number}: {kind}: {what}: {command}: {outcome}\n{error[-1500:]}")
        shutil.rmtree(damaged)
    lines = [f"{name}: {count} x {outcome}" for outcome, count in sorted(counts.items())]
    (tmp_path / "counts.txt").write_text("\n".join(lines))
    print("\n".join(lines))  # noqa: T201 - shown with -s
    assert not wrong, "\n".join(wrong)
