"""IQN on MinAtar Breakout beside sb3-contrib's QR-DQN and Tianshou's IQN: returns and seconds after as many steps.

Networks, batches, exploration and learning rate are the same (settings/iqn_peers.yaml says what is not). Each run is
measured by its best weights on 100 greedy episodes of unused seeds; runs that have been made are read, not made again.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from common.harness import RESULTS, Worker
from common.learning import read_run
from learning import train

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs/iqn/btr_minatar.yaml"
OURS = {
    "IQN": "btr={}",
    "IQN with n_step": "btr={n_step: 3}",
    "Beyond The Rainbow": "btr={all: true, impala: {width: 1}}",
}
PEERS = {
    "QR-DQN, sb3-contrib": ("sb3_qrdqn.py", "qrdqn_minatar"),
    "IQN with n_step, Tianshou": ("tianshou_iqn.py", "tianshou_minatar"),
}
Answer = dict[str, Any]  # best, last: mean returns; wall, cpu: seconds


def ours(name: str, seed: int, steps: int, runs: Path) -> Answer:
    """A run of ``tesserl train``, evaluations included in its seconds."""
    run_dir = runs / f"{name.lower().replace(' ', '-')}-seed-{seed}"
    train(CONFIG, run_dir, seed, [OURS[name], f"total_steps={steps}", "evaluation.interval=10_000"])
    run = read_run(run_dir, seed)
    return {"best": run.best, "last": run.last, "wall": run.wall, "cpu": run.cpu}


def peer(name: str, seed: int, steps: int, runs: Path, python: str) -> Answer:
    """A peer's run; evaluations are not in its seconds."""
    script, entry = PEERS[name]
    record = runs / f"{entry}-seed-{seed}.json"
    if not record.exists():
        settings = yaml.safe_load((ROOT / "benchmarks/settings/iqn_peers.yaml").read_text())[entry]
        with Worker(script, {**settings, "seed": seed}, python=python) as worker:
            answer: Answer = worker.ask(steps)
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(answer))
    answer = json.loads(record.read_text())
    best, last = float(np.mean(answer["returns"])), float(np.mean(answer["last_returns"]))
    return {"best": best, "last": last, "wall": answer["wall"], "cpu": answer["cpu"]}


def row(name: str, answers: list[Answer]) -> str:
    best, last = (", ".join(f"{answer[key]:.1f}" for answer in answers) for key in ("best", "last"))
    wall, cpu = (np.median([answer[key] for answer in answers]) for key in ("wall", "cpu"))
    return f"| {name} | {best} | {last} | {wall:.0f} s wall, {cpu:.0f} s CPU |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--runs", type=Path, default=Path("runs/minatar_peers"), help="where the runs go")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has the peers installed")
    parser.add_argument("--quick", action="store_true", help="one seed, few steps: does everything run?")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.steps, options.runs = options.seeds[:1], 12_000, options.runs / "quick"
    results: dict[str, list[Answer]] = {name: [] for name in (*OURS, *PEERS)}
    rows = ["| | best weights, by seed | last weights | median time |", "|---|---|---|---|"]
    for seed in options.seeds:
        for name in OURS:
            results[name].append(ours(name, seed, options.steps, options.runs))
        for name in PEERS:
            results[name].append(peer(name, seed, options.steps, options.runs, options.peers_python))
        print(f"seed {seed}:", ", ".join(f"{name} {answers[-1]['best']:.1f}" for name, answers in results.items()))
    rows += [row(name, answers) for name, answers in results.items()]
    print("\n".join(rows))
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "minatar_peers.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
