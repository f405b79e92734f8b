"""Peak memory, as the operating system reports it: a full replay of stacked frames; a run of PPO against SB3's.

The replay holds 2^20 transitions of four frames of 84 x 84, no two frames equal. The runs are whole programs,
``tesserl train configs/ppo/cartpole.yaml`` and SB3 with evaluations and checkpoints on the same schedule.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

import yaml

from common.harness import finish
from tesserl_configs import load_config
from train_cartpole import CONFIG, WORKERS, sb3_settings

CAPACITY = 2**20
MOST_GIBIBYTES = 7.3
"""Bar of the replay's peak memory, without the peak of the imports."""


def replay(capacity: int) -> dict[str, float]:
    """Fill a replay in a separate process; return its peak for 2^20 transitions in GiB, with and without imports."""
    command = [sys.executable, str(WORKERS / "replay_memory.py"), str(capacity)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    answer = json.loads(lines[-1])
    gibibytes = (answer["peak"] - answer["before"]) / 2**30
    print(
        f"replay of {answer['transitions']} transitions, {answer['frames']} frames: peak {answer['peak'] / 2**30:.2f} "
        f"GiB, of which {answer['before'] / 2**30:.2f} were imported before: {gibibytes:.2f} GiB",
        flush=True,
    )
    return answer | {"gibibytes": gibibytes}


def peak(command: list[str]) -> float:
    """Run a program in a new directory; return its peak resident memory in MiB."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "RL_WARNINGS": "False"}
    with tempfile.TemporaryDirectory() as directory:
        process = subprocess.Popen(command, cwd=directory, env=environment, stdout=subprocess.DEVNULL)
        # Linux reports KiB, at least the peak of this small process when it started the program
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command} ended with status {status}")
    return usage.ru_maxrss / 1024


def ppo(python: str, overrides: list[str]) -> dict[str, float]:
    """Return the peaks of both programs, in MiB."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as settings:
        yaml.safe_dump(sb3_settings(load_config(CONFIG, overrides)), settings)
        settings.flush()
        theirs = peak([python, str(WORKERS / "sb3_train.py"), settings.name])
    options = [part for override in overrides for part in ("--set", override)]
    ours = peak([sys.executable, "-m", "tesserl_trainer", "train", str(CONFIG), *options])
    print(f"PPO on CartPole: peak {ours:.0f} MiB, by SB3 {theirs:.0f} MiB: {ours / theirs:.2f}", flush=True)
    return {"ours": ours, "sb3": theirs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has SB3 installed")
    parser.add_argument("--part", choices=["replay", "ppo", "both"], default="both")
    parser.add_argument("--quick", action="store_true", help="2^14 transitions, 5,000 steps: does everything run?")
    options = parser.parse_args()
    runs = ppo(options.peers_python, ["total_steps=5000"] * options.quick) if options.part != "replay" else {}
    filled = replay(2**14 if options.quick else CAPACITY) if options.part != "ppo" else {}
    missed = [
        *["replay of 2^20 stacks"] * (filled.get("gibibytes", 0.0) >= MOST_GIBIBYTES),
        *["PPO on CartPole, by SB3"] * (runs.get("ours", 0.0) >= runs.get("sb3", 1.0)),
    ]
    finish("memory", [], missed=missed, ppo_mebibytes=runs, replay=filled)
    if missed:
        sys.exit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
