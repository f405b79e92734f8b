"""Compare offline DPO and CPL with behaviour cloning: learn a better policy than that of the data.

python benchmarks/preferences.py                        CartPole, pairs of whole episodes, five seeds
python benchmarks/preferences.py --mistakes 0.2         a fifth of the labels are wrong
python benchmarks/preferences.py --task lunarlander     LunarLander, segments of 64 steps that an expert judges
python benchmarks/preferences.py --task lunarlander --by return   the same, by the reward of these steps
python benchmarks/preferences.py --quick                does everything run?

A mediocre policy plays; segments of its episodes are paired and labelled. Every method learns from these pairs with the
same network, number of gradient updates and batch size: cloning the chosen segments, cloning all segments, and DPO and
CPL, which spend the first third of their updates cloning all. Each is scored by its last weights on the same 100
episodes, greedy and sampled. Finished parts are read, not repeated.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.harness import RESULTS
from tesserl_analysis.record import read_metrics, series
from tesserl_analysis.statistics import interval, mean
from tesserl_configs import load_config
from tesserl_trainer import evaluate, train
from tesserl_trainer.pairs.making import make_store
from tesserl_trainer.running.collect import collect
from tesserl_trainer.running.pretrain import pretrain_bc

ROOT = Path(__file__).parents[1]
RARELY = ["evaluation.episodes=5", "evaluation.final_episodes=5", "evaluation.interval=1_000_000"]
METHODS = ("bc chosen", "bc all", "dpo", "cpl")
RETURNS = ("returns", "sampled_returns")


@dataclass(frozen=True)
class Task:
    """A source of pairs and the losses that learn from them."""

    teacher: str  # configuration of the policy of the data
    teacher_steps: int
    episodes: int
    segment: str
    by: str  # of `tesserl pairs make`; "regret" uses an expert: the teacher trained for more steps
    expert_steps: int
    solved: float  # return at which the task counts as solved
    dpo: str
    cpl: str

    def file(self, method: str) -> Path:
        """Return the configuration of a method; cloning uses that of DPO."""
        return ROOT / (self.cpl if method == "cpl" else self.dpo)

    def share(self, reached: float, random: float) -> float:
        """Return the position of a return between random (0) and solved (1)."""
        return (reached - random) / (self.solved - random)


TASKS = {
    "cartpole": Task(
        teacher="configs/ppo/cartpole.yaml",
        teacher_steps=6_144,
        episodes=2_000,
        segment="episode",
        by="return",
        expert_steps=49_152,
        solved=500,
        dpo="configs/dpo/cartpole_offline.yaml",
        cpl="benchmarks/settings/cpl_cartpole.yaml",
    ),
    "lunarlander": Task(
        teacher="configs/ppo/lunarlander.yaml",
        teacher_steps=40_960,
        episodes=1_000,
        segment="fixed:64",
        by="regret",
        expert_steps=204_800,
        solved=200,
        dpo="benchmarks/settings/dpo_lunarlander.yaml",
        cpl="configs/dpo/cpl_lunarlander.yaml",
    ),
}


def make_data(
    task: Task, runs: Path, num_episodes: int, num_pairs: int, mistakes: float, by: str
) -> tuple[Path, dict[str, float]]:
    """Make the pairs; return them with the returns of a random policy and of the policy of the data."""
    policy, episodes, about = runs / "mediocre", runs / "episodes", runs / "about.json"
    pairs = runs / (f"pairs-{by}-{mistakes:g}" if mistakes else f"pairs-{by}")
    if not (policy / "evaluation.json").exists():
        train(load_config(ROOT / task.teacher, [f"total_steps={task.teacher_steps}", *RARELY]), run_dir=policy)
    if not about.exists():
        played = collect(policy, checkpoint="latest", episodes=num_episodes, seed=7, out=episodes)
        random = collect(ROOT / task.teacher, random=True, episodes=200, seed=7, out=runs / "random")
        returns = {"random": random["return_mean"], "sampled": played["return_mean"]}
        returns["greedy"] = evaluate(policy, episodes=100, checkpoint="latest")["return_mean"]
        about.write_text(json.dumps(returns))
    if not pairs.exists():
        teacher = f"mistake:{mistakes:g}" if mistakes else None
        score = f"regret:{expert_of(task, runs)}" if by == "regret" else by
        make_store([episodes], num=num_pairs, segment=task.segment, by=score, teacher=teacher, out=pairs)
    returns = json.loads(about.read_text())
    shares = {f"share, {name}": task.share(returns[name], returns["random"]) for name in ("sampled", "greedy")}
    return pairs, returns | shares


def expert_of(task: Task, runs: Path) -> Path:
    """Train the expert whose best checkpoint judges segments."""
    expert = runs / "expert"
    if not (expert / "evaluation.json").exists():
        train(load_config(ROOT / task.teacher, [f"total_steps={task.expert_steps}"]), run_dir=expert)
    return expert


def learn(task: Task, method: str, seed: int, pairs: Path, runs: Path, updates: int) -> dict[str, Any]:
    """Train and evaluate one method with one seed."""
    run_dir = runs / f"{pairs.name}-{method.replace(' ', '-')}-seed-{seed}"
    file, same = task.file(method), [f"seed={seed}", *RARELY, f"pairs.source.path={pairs}"]
    size = load_config(task.file("dpo")).dpo.batch_size
    if (run_dir / "evaluation.json").exists():
        pass
    elif method.startswith("bc"):
        side: Any = method.removeprefix("bc ")
        pretrain_bc(file, pairs=pairs, data=side, updates=updates, batch_size=size, run_dir=run_dir, overrides=same)
    else:
        first = updates // 3
        own = [f"{method}.pretraining.num_updates={first}", f"{method}.batch_size={size}"]
        train(load_config(file, [*same, *own, f"total_steps={updates - first}"]), run_dir=run_dir)
    result = evaluate(run_dir, episodes=100, checkpoint="latest")
    sampled = evaluate(run_dir, episodes=100, checkpoint="latest", stochastic=True)
    accuracy = series(read_metrics(run_dir / "metrics.csv"), "held_out/rewards/accuracies")[1]
    return {
        "return": result["return_mean"],
        "returns": result["returns"],
        "sampled": sampled["return_mean"],
        "sampled_returns": sampled["returns"],
        "accuracy": accuracy[-1] if accuracy else None,
    }


def report(results: dict[str, list[dict[str, Any]]], data: dict[str, float]) -> list[str]:
    """Return table rows: each method, and how often it beat both cloning methods and the policy of the data."""
    rows = [
        "| method | greedy return by seed | mean | 95 % interval | sampled | better than both clones | "
        "than the data, greedy and sampled | held-out accuracy |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method, runs in results.items():
        returns = [run["return"] for run in runs]
        _, low, high = interval([np.array(returns)], mean)
        cloned = [[run["return"] for run in results.get(name, [])] for name in METHODS[:2]]
        better = sum(own > max(theirs) for own, *theirs in zip(returns, *cloned, strict=all(cloned)))
        above = [sum(is_above(run[key], max(data["sampled"], data["greedy"])) for run in runs) for key in RETURNS]
        accuracies = [run["accuracy"] for run in runs if run["accuracy"] is not None]
        accuracy = f"{np.mean(accuracies):.3f}" if accuracies else ""
        wins = f"{better} of {len(runs)}" if all(cloned) and not method.startswith("bc") else ""
        each = ", ".join(f"{value:.0f}" for value in returns)
        sampled = ", ".join(f"{run['sampled']:.0f}" for run in runs)
        rows.append(
            f"| {method} | {each} | {np.mean(returns):.1f} | {low:.1f} to {high:.1f} | {sampled} | {wins} | "
            f"{above[0]} and {above[1]} of {len(runs)} | {accuracy} |"
        )
    return rows


def is_above(returns: list[float], reference: float) -> bool:
    """Return whether a run's mean return exceeds a reference by more than its 95 % interval."""
    _, low, _ = interval([np.array(returns)], mean)
    return low > reference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, default="cartpole")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=METHODS, help="what to train (all four)")
    parser.add_argument("--mistakes", type=float, default=0.0, help="share of wrong labels")
    parser.add_argument(
        "--by", choices=["return", "to_go", "to_go:0.99", "regret"], help="what segments are compared by"
    )
    parser.add_argument("--updates", type=int, default=1_500, help="gradient updates of each method")
    parser.add_argument("--runs", type=Path, default=Path("runs/preferences"), help="where the runs go")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the table goes")
    parser.add_argument("--quick", action="store_true", help="one seed, few updates")
    arguments = parser.parse_args()
    task, seeds, updates, runs = (
        TASKS[arguments.task],
        arguments.seeds,
        arguments.updates,
        arguments.runs / arguments.task,
    )
    num_episodes, num_pairs = task.episodes, 2_000
    if arguments.quick:
        seeds, updates, runs, num_episodes, num_pairs = seeds[:1], 30, runs / "quick", 40, 60
    runs.mkdir(parents=True, exist_ok=True)
    by = arguments.by or task.by
    pairs, data = make_data(task, runs, num_episodes, num_pairs, arguments.mistakes, by)
    print(f"the policy of the data: {data}", flush=True)
    results: dict[str, list[dict[str, Any]]] = {method: [] for method in arguments.methods}
    for method in arguments.methods:
        for seed in seeds:
            results[method].append(learn(task, method, seed, pairs, runs, updates))
            print(f"seed {seed}: {method} {results[method][-1]['return']:.1f}", flush=True)
    rows = report(results, data)
    print("\n".join(rows))
    name = f"preferences_{arguments.task}_{by}" + (f"_{arguments.mistakes:g}" if arguments.mistakes else "")
    if not arguments.quick:
        record = {"data": data, "seeds": seeds, "updates": updates, "results": results}
        (arguments.output / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
        (arguments.output / f"{name}.md").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
