r"""IQN on MinAtar Breakout compared with sb3-contrib's QR-DQN and Tianshou's IQN: returns and seconds at equal steps.

Networks, batches, updates, exploration and learning rate are the same; settings/iqn_peers.yaml lists the differences.
Our runs come from the ablation:

tesserl sweep configs/sweeps/minatar_ablation.yaml --name minatar-ablation-100k \
    --task breakout --set total_steps=100_000 --set evaluation.interval=10_000

Each run is scored by its best weights on 100 greedy episodes of unused seeds. Its seconds are training time without
evaluations. Finished runs of peers are read, not trained again.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from common.harness import RESULTS, Worker
from tesserl_analysis.record import read_metrics, series

ROOT = Path(__file__).parents[1]
OURS = {"IQN": "iqn", "IQN with n_step": "n_step", "Beyond The Rainbow": "all"}  # variants of the sweep
PEERS = {
    "QR-DQN, sb3-contrib": ("sb3_qrdqn.py", "qrdqn_minatar"),
    "IQN with n_step, Tianshou": ("tianshou_iqn.py", "tianshou_minatar"),
}
Answer = dict[str, Any]  # best, last: mean returns; wall: seconds


def ours(run_dir: Path) -> Answer:
    """Return the results of one run of the sweep."""
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    steps, rates = series(read_metrics(run_dir / "metrics.csv"), "time/steps_per_second")
    wall = sum(np.diff([0, *steps]) / rates)
    return {"best": evaluation["return_mean"], "last": evaluation["last_return_mean"], "wall": wall}


def peer(name: str, seed: int, steps: int, runs: Path, python: str) -> Answer:
    """Return the results of a peer's run; its seconds exclude evaluations."""
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
    return {"best": best, "last": last, "wall": answer["wall"]}


def row(name: str, answers: list[Answer]) -> str:
    best, last = (", ".join(f"{answer[key]:.1f}" for answer in answers) for key in ("best", "last"))
    return f"| {name} | {best} | {last} | {np.median([answer['wall'] for answer in answers]):.0f} s |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument(
        "--sweep", type=Path, default=Path("runs/minatar-ablation-100k/breakout"), help="where ours are"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/minatar_peers"), help="where the peers' runs go")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has the peers installed")
    parser.add_argument("--quick", action="store_true", help="peers only, one seed, few steps: does everything run?")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.steps, options.runs = options.seeds[:1], 12_000, options.runs / "quick"
    results: dict[str, list[Answer]] = {name: [] for name in PEERS}
    rows = ["| | best weights, by seed | last weights | median time |", "|---|---|---|---|"]
    for seed in options.seeds:
        for name in PEERS:
            results[name].append(peer(name, seed, options.steps, options.runs, options.peers_python))
        print(f"seed {seed}:", ", ".join(f"{name} {answers[-1]['best']:.1f}" for name, answers in results.items()))
    if not options.quick:
        found = {name: [ours(options.sweep / OURS[name] / f"seed-{seed}") for seed in options.seeds] for name in OURS}
        results = found | results
    rows += [row(name, answers) for name, answers in results.items()]
    print("\n".join(rows))
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "minatar_peers.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
