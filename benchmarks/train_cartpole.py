"""Seconds of ``tesserl train configs/ppo/cartpole.yaml`` from start to exit, and to its first step.

Against SB3 with evaluations (its EvalCallback) and checkpoints on the same schedule.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from common.harness import HEADER, Bar, Measurement, Side, arguments, compare, finish
from tesserl_configs import RunConfig, load_config

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs/ppo/cartpole.yaml"
WORKERS = ROOT / "benchmarks/workers"
MOST_SECONDS = 2.5
"""Bar of the seconds to the first step."""


def program(command: list[str]) -> Side:
    """Return a side that runs a program to its end in a new directory."""

    def run() -> Measurement:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "RL_WARNINGS": "False"}
        with tempfile.TemporaryDirectory() as directory:
            wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, cwd=directory, env=environment, check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Measurement(1, time.perf_counter() - wall, cpu)

    return run


def sb3_settings(config: RunConfig) -> dict[str, object]:
    """Return the configuration under SB3's names; its `n_steps` is per environment."""
    ppo, schedule = config.ppo, config.optimizer.learning_rate
    rollout = ppo.num_steps * config.environment.num_envs
    return {
        "task": config.environment.id,
        "seed": config.seed,
        "total_steps": config.total_steps,
        "num_envs": config.environment.num_envs,
        "learning_rates": schedule.knots,
        "evaluation": config.evaluation.model_dump(include={"interval", "episodes", "final_episodes", "seed"}),
        "checkpoint": config.checkpoint.interval,
        "ppo": {
            "n_steps": ppo.num_steps,
            "batch_size": rollout // ppo.num_minibatches,
            "n_epochs": ppo.num_epochs,
            "gamma": ppo.discount,
            "gae_lambda": ppo.gae_lambda,
            "clip_range": ppo.clip_epsilon,
            "ent_coef": ppo.entropy_coef,
            "vf_coef": ppo.value_coef / 2,  # SB3's squared error has no factor 1/2
            "max_grad_norm": ppo.max_grad_norm,
        },
    }


def first_step(rounds: int) -> dict[str, float]:
    """Return the least wall time and processor time in seconds from the start of the command to its first step."""
    side = program([sys.executable, str(WORKERS / "first_step.py"), "train", str(CONFIG)])
    side()
    measured = [side() for _ in range(rounds)]
    seconds = {kind: min(getattr(each, kind) for each in measured) for kind in ("wall", "cpu")}
    held = "" if seconds["wall"] <= MOST_SECONDS else "MISSED"
    print(
        f"seconds to the first step: {seconds['wall']:.2f}, {seconds['cpu']:.2f} of the processor  {held}", flush=True
    )
    return seconds


def main() -> None:
    parser = arguments(__doc__, seconds=0.0)
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has SB3 installed")
    parser.add_argument("--part", choices=["train", "first-step", "both"], default="both")
    options = parser.parse_args()
    seconds = first_step(options.rounds) if options.part != "train" else {}
    comparisons = []
    if options.part != "first-step":
        print(HEADER)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as settings:
            yaml.safe_dump(sb3_settings(load_config(CONFIG)), settings)
            settings.flush()
            peer = program([options.peers_python, str(WORKERS / "sb3_train.py"), settings.name])
            ours = program([sys.executable, "-m", "tesserl_trainer", "train", str(CONFIG)])
            name = "tesserl train, start to exit, by SB3"
            comparisons.append(compare(name, peer, ours, Bar("cost", 0.7), rounds=options.rounds))
    finish("train_cartpole", comparisons, first_step=seconds)


if __name__ == "__main__":
    main()
