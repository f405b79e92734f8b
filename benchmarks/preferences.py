"""A policy that is better than its data: offline DPO and CPL against behaviour cloning on CartPole.

python benchmarks/preferences.py                    five seeds
python benchmarks/preferences.py --mistakes 0.2     a fifth of the labels are wrong
python benchmarks/preferences.py --quick            does everything run?

One mediocre policy plays, its episodes are paired by return, and every method learns from these pairs with the same
network and the same number of gradient updates on batches of the same size: cloning of the chosen episodes, cloning of
all of them, DPO and CPL after a third of their updates of cloning all. Each is measured by its last weights on 100
greedy episodes, the same for all. Steps that have been done are read, not done again.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from common.harness import RESULTS
from common.learning import bootstrap_interval
from tesserl_configs import load_config
from tesserl_trainer import evaluate
from tesserl_trainer.analysis.record import read_metrics, series

ROOT = Path(__file__).parents[1]
DPO, CPL = ROOT / "configs/dpo/cartpole_offline.yaml", ROOT / "benchmarks/settings/cpl_cartpole.yaml"
RARELY = ["evaluation.episodes=5", "evaluation.interval=1_000_000"]
METHODS = ("bc chosen", "bc all", "dpo", "cpl")


def tesserl(*arguments: object) -> str:
    """Runs a command and returns what it printed."""
    command = [sys.executable, "-m", "tesserl_trainer.cli", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def options(overrides: list[str]) -> list[str]:
    return [option for override in overrides for option in ("--set", override)]


def make_data(runs: Path, num_episodes: int, num_pairs: int, mistakes: float) -> tuple[Path, dict[str, float]]:
    """The mediocre policy, its episodes and their pairs; and what it and a random one reach."""
    policy, episodes = runs / "mediocre", runs / "episodes"
    pairs = runs / (f"pairs-{mistakes:g}" if mistakes else "pairs")
    ppo = ROOT / "configs/ppo/cartpole.yaml"
    if not (policy / "evaluation.json").exists():
        tesserl("train", ppo, "--run-dir", policy, *options(["total_steps=6_144", *RARELY]))
    if not episodes.exists():
        about = tesserl("collect", policy, "--checkpoint", "latest", "--episodes", num_episodes, "--seed", 7,
                        "--out", episodes)  # fmt: skip
        (runs / "about.json").write_text(about)
        tesserl("collect", ppo, "--random", "--episodes", 100, "--seed", 7, "--out", runs / "random")
    if not pairs.exists():
        teacher = ["--teacher", f"mistake:{mistakes:g}"] if mistakes else []
        tesserl("pairs", "make", episodes, "--num", num_pairs, "--out", pairs, *teacher)
    greedy = evaluate(policy, episodes=100, checkpoint="latest")["return_mean"]
    return pairs, {"sampled": json.loads((runs / "about.json").read_text())["return_mean"], "greedy": greedy}


def learn(method: str, seed: int, pairs: Path, runs: Path, updates: int) -> dict[str, Any]:
    """One method, one seed."""
    run_dir = runs / f"{pairs.name}-{method.replace(' ', '-')}-seed-{seed}"
    same = [f"seed={seed}", *RARELY, f"pairs.source.path={pairs}"]
    if not (run_dir / "evaluation.json").exists():
        if method.startswith("bc"):
            size = load_config(DPO).dpo.batch_size
            tesserl("pretrain", "bc", DPO, "--pairs", pairs, "--data", method.removeprefix("bc "), "--updates", updates,
                    "--batch-size", size, "--run-dir", run_dir, *options(same))  # fmt: skip
        else:
            split = [f"{method}.pretraining.num_updates={updates // 3}", f"total_steps={updates - updates // 3}"]
            file = DPO if method == "dpo" else CPL
            tesserl("train", file, "--run-dir", run_dir, *options([*same, *split]))
    result = evaluate(run_dir, episodes=100, checkpoint="latest")
    accuracy = series(read_metrics(run_dir / "metrics.csv"), "held_out/rewards/accuracies")[1]
    return {
        "return": result["return_mean"],
        "returns": result["returns"],
        "accuracy": accuracy[-1] if accuracy else None,
    }


def report(results: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Rows of a table: each method, and how often it was better than both ways of cloning."""
    rows = [
        "| method | mean return | 95 % interval | better than cloning | held-out accuracy |",
        "|---|---|---|---|---|",
    ]
    for method, runs in results.items():
        returns = [run["return"] for run in runs]
        low, high = bootstrap_interval(returns)
        cloned = [max(results[name][index]["return"] for name in METHODS[:2]) for index in range(len(runs))]
        better = sum(ours > theirs for ours, theirs in zip(returns, cloned, strict=True))
        accuracies = [run["accuracy"] for run in runs if run["accuracy"] is not None]
        accuracy = f"{np.mean(accuracies):.3f}" if accuracies else ""
        wins = "" if method.startswith("bc") else f"{better} of {len(runs)}"
        rows.append(f"| {method} | {np.mean(returns):.1f} | {low:.1f} to {high:.1f} | {wins} | {accuracy} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--mistakes", type=float, default=0.0, help="share of wrong labels")
    parser.add_argument("--updates", type=int, default=3_000, help="gradient updates of each method")
    parser.add_argument("--runs", type=Path, default=Path("runs/preferences"), help="where the runs go")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the table goes")
    parser.add_argument("--quick", action="store_true", help="one seed, few updates")
    arguments = parser.parse_args()
    seeds, updates, numbers, runs = arguments.seeds, arguments.updates, (2_000, 2_000), arguments.runs
    if arguments.quick:
        seeds, updates, numbers, runs = seeds[:1], 30, (40, 60), runs / "quick"
    runs.mkdir(parents=True, exist_ok=True)
    pairs, data = make_data(runs, *numbers, arguments.mistakes)
    print(f"the policy of the data: {data}", flush=True)
    results: dict[str, list[dict[str, Any]]] = {method: [] for method in METHODS}
    for seed in seeds:
        for method in METHODS:
            results[method].append(learn(method, seed, pairs, runs, updates))
            print(f"seed {seed}: {method} {results[method][-1]['return']:.1f}", flush=True)
    rows = report(results)
    print("\n".join(rows))
    name = "preferences_cartpole" + (f"_{arguments.mistakes:g}" if arguments.mistakes else "")
    if not arguments.quick:
        record = {"data": data, "seeds": seeds, "updates": updates, "results": results}
        (arguments.output / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
        (arguments.output / f"{name}.md").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
