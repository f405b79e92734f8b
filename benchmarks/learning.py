"""Trains one file with several seeds and prints the row of docs/results.md.

python benchmarks/learning.py configs/iqn/cartpole.yaml --seeds 1 2 3 4 5 --runs runs/learning

Each seed is one ``tesserl train`` in a process of its own, from its start to its exit; runs that are there already are
read, not trained again. Wall times mean something on an idle machine only; CPU times say more on a busy one.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tesserl_configs import load_config
from tesserl_trainer.analysis.record import read_metrics, series


def train(config: Path, run_dir: Path, seed: int, overrides: list[str]) -> dict[str, float]:
    """Trains one seed; returns what it took."""
    if (run_dir / "took.json").exists():
        return json.loads((run_dir / "took.json").read_text())
    options = [option for override in [f"seed={seed}", *overrides] for option in ("--set", override)]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "tesserl_trainer.cli", "train", str(config), "--run-dir", str(run_dir), *options],
        check=True,
        env={"OMP_NUM_THREADS": "1", **os.environ},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    took = {"wall": time.perf_counter() - began, "cpu": cpu}
    (run_dir / "took.json").write_text(json.dumps(took))
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--runs", type=Path, default=Path("runs/learning"), help="where the runs go")
    parser.add_argument("--target", type=float, help="also print the first evaluation that reaches this return")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    name, steps = load_config(options.config).name, load_config(options.config, options.overrides).total_steps
    best, last, walls, cpus, firsts = [], [], [], [], []
    for seed in options.seeds:
        run_dir = options.runs / f"{name}-seed-{seed}"
        took = train(options.config, run_dir, seed, options.overrides)
        evaluation = json.loads((run_dir / "evaluation.json").read_text())
        best.append(evaluation["return_mean"])
        last.append(evaluation["last_return_mean"])
        walls.append(took["wall"])
        cpus.append(took["cpu"])
        at, returns = series(read_metrics(run_dir / "metrics.csv"), "evaluation/return")
        if options.target is not None:
            reached = [step for step, value in zip(at, returns, strict=True) if value >= options.target]
            firsts.append(str(reached[0]) if reached else "never")
    cells = [
        name,
        " ".join(map(str, options.seeds)),
        f"{steps:,}",
        ", ".join(f"{value:.0f}" for value in best),
        ", ".join(f"{value:.0f}" for value in last),
        f"{np.median(walls):.0f} s wall, {np.median(cpus):.0f} s CPU",
    ]
    print("| experiment | seeds | steps | return, best checkpoint | return, last weights | median time |")
    print("|---|---|---|---|---|---|")
    print(f"| {' | '.join(cells)} |")
    if options.target is not None:
        print(f"first evaluation >= {options.target:g}, by seed: {', '.join(firsts)}")


if __name__ == "__main__":
    main()
