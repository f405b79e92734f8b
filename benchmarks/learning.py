"""Train configurations with several seeds: returns of the best and last weights, curves, rows of docs/results.md.

python benchmarks/learning.py                                                      the bars of settings/learning.yaml
python benchmarks/learning.py --only ppo-cartpole ppo-pendulum                     some of them
python benchmarks/learning.py configs/iqn/cartpole.yaml --seeds 1 2 3 --target 475 one file

Each seed is one ``tesserl train`` in a separate process, timed from start to exit. Finished runs are read, not trained
again. Wall times are meaningful only on an idle machine; on a busy one use CPU times.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from common.harness import RESULTS
from common.learning import HEADER, Learned, draw, read_run, sb3
from tesserl_configs import load_config

ROOT = Path(__file__).parents[1]
SETTINGS = ROOT / "benchmarks/settings"
FEW_EPISODES = {"episodes": 2, "final_episodes": 2}


def train(config: Path, run_dir: Path, seed: int, overrides: list[str]) -> None:
    """Train one seed unless it is finished, and record its time."""
    if (run_dir / "took.json").exists():
        return
    options = [option for override in [f"seed={seed}", *overrides] for option in ("--set", override)]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "tesserl_trainer.cli", "train", str(config), "--run-dir", str(run_dir), *options],
        check=True,
        env={"OMP_NUM_THREADS": "1", **os.environ},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    (run_dir / "took.json").write_text(json.dumps({"wall": time.perf_counter() - began, "cpu": cpu}))


def learn(bar: dict[str, Any], runs: Path, overrides: list[str], python: str, *, quick: bool) -> Learned:
    """Train all seeds of one entry of ``settings/learning.yaml``, and the peer's."""
    config, overrides, seeds = Path(bar["config"]), [*bar.get("set", ()), *overrides], bar["seeds"]
    loaded = load_config(config, overrides)
    if quick:
        steps = loaded.environment.num_envs * loaded.ppo.num_steps  # one rollout, for algorithms with rollouts
        few = {"interval": steps, **FEW_EPISODES}
        overrides += [f"total_steps={steps}", *(f"evaluation.{name}={value}" for name, value in few.items())]
        loaded = load_config(config, overrides)
    name = bar.get("name", loaded.name)
    trained = []
    for seed in seeds:
        run_dir = runs / f"{name}-seed-{seed}"
        train(config, run_dir, seed, overrides)
        trained.append(read_run(run_dir, seed))
    learned = Learned(name, loaded.total_steps, trained, bar.get("at_least"))
    if "peer" in bar:
        settings = yaml.safe_load((SETTINGS / "sb3_ppo.yaml").read_text())[bar["peer"]]
        if quick:
            settings["evaluation"] |= {"interval": loaded.total_steps, **FEW_EPISODES}
        record = runs / f"sb3-{bar['peer']}.jsonl"
        learned.peer = sb3(settings, seeds, loaded.total_steps, record, python)
    return learned


def chosen(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return an entry for the named file, or the selected bars."""
    if options.config is not None:
        return [{"config": str(options.config), "seeds": options.seeds or [1]}]
    bars = yaml.safe_load((SETTINGS / "learning.yaml").read_text())
    for bar in bars:
        bar["config"] = str(ROOT / bar["config"])
        bar.setdefault("name", load_config(bar["config"]).name)
        bar["seeds"] = options.seeds or bar["seeds"]
    names = [bar["name"] for bar in bars]
    unknown = set(options.only or ()).difference(names)
    if unknown:
        sys.exit(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return [bar for bar in bars if not options.only or bar["name"] in options.only]


def write(results: list[Learned], output: Path) -> None:
    """Write table, numbers and pictures."""
    output.mkdir(parents=True, exist_ok=True)
    rows = [learned.row() for learned in results]
    (output / "learning.md").write_text("\n".join([HEADER, *rows]) + "\n")
    record = [asdict(learned) | {"holds": learned.holds, "difference": learned.difference} for learned in results]
    (output / "learning.json").write_text(json.dumps(record, indent=1) + "\n")
    for learned in results:
        draw(learned, output / f"{learned.name}.png")
    print("\n".join([HEADER, *rows]))
    print(f"written to {output}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, nargs="?", help="one file instead of the bars")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these bars")
    parser.add_argument("--seeds", type=int, nargs="+", help="of a file 1, of a bar its own")
    parser.add_argument("--runs", type=Path, default=Path("runs/learning"), help="where the runs go")
    parser.add_argument("--output", type=Path, default=RESULTS / "learning", help="where table and pictures go")
    parser.add_argument("--target", type=float, help="also print the first evaluation that reaches this return")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has SB3 installed")
    parser.add_argument("--quick", action="store_true", help="one seed, one rollout, no bars: does everything run?")
    options = parser.parse_args()
    bars = chosen(options)
    if options.quick:
        options.runs /= "quick"
        bars = [{**bar, "seeds": bar["seeds"][:1], "at_least": None} for bar in bars]
    results = []
    for bar in bars:
        results.append(learn(bar, options.runs, options.overrides, options.peers_python, quick=options.quick))
        print(HEADER, results[-1].row(), sep="\n", flush=True)
        if options.target is not None:
            reached = [str(step or "never") for step in results[-1].first(options.target)]
            print(f"first evaluation >= {options.target:g}, by seed: {', '.join(reached)}", flush=True)
    write(results, options.output)
    missed = [learned.name for learned in results if not (options.quick or learned.holds)]
    if missed:
        sys.exit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
