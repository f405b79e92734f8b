"""Seconds of training to a greedy return of 200 on LunarLander: PPO against SB3's, IQN against sb3-contrib's QR-DQN.

python benchmarks/lunarlander.py --algorithm ppo --seeds 5

Each side uses its published settings for this task: our files in `configs/`, rl-baselines3-zoo's for the peers. Every
10,000 steps, 20 greedy episodes are evaluated, not counted in the time; a return of 200 ends the run.
"""

import argparse
import sys
from pathlib import Path

import yaml

from common.harness import HEADER, finish
from common.target import Contestant, time_to_target
from tesserl_configs import load_config

ROOT = Path(__file__).parents[1]
TARGET = 200.0
EVALUATION = {"interval": 10_000, "episodes": 20, "seed": 10_000, "max_episode_steps": 1_000}
PEERS = {  # name of the peer, its worker, its settings, steps at most: those of rl-baselines3-zoo
    "ppo": ("SB3", "sb3_ppo.py", ("sb3_ppo.yaml", "lunarlander_target"), 1_000_000),
    "iqn": ("QR-DQN", "sb3_qrdqn.py", ("iqn_peers.yaml", "qrdqn_lunarlander_target"), 100_000),
}
BARS = {"ppo": 0.3, "iqn": 0.6}


def peer(algorithm: str, python: str) -> Contestant:
    label, script, (file, entry), steps = PEERS[algorithm]
    settings = yaml.safe_load((ROOT / "benchmarks/settings" / file).read_text())[entry]
    settings |= {"evaluation": EVALUATION, "target": TARGET}
    return Contestant(label, script, lambda seed: {"seed": seed, **settings}, steps, python)


def ours(algorithm: str) -> Contestant:
    config = ROOT / "configs" / algorithm / "lunarlander.yaml"
    same = [f"evaluation.{name}={value}" for name, value in EVALUATION.items()]
    settings = {"config": str(config), "target": TARGET}
    steps = load_config(config).total_steps
    return Contestant("ours", "our_loop.py", lambda seed: {"overrides": [f"seed={seed}", *same], **settings}, steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", choices=PEERS, action="append", help="may be repeated (default: both)")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 1 to this (5)")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has SB3 and sb3-contrib")
    options = parser.parse_args()
    print(HEADER)
    comparisons, runs = [], []
    for algorithm in options.algorithm or PEERS:
        label = PEERS[algorithm][0]
        comparison, own = time_to_target(
            f"{algorithm}: seconds to a return of 200, by {label}",
            peer(algorithm, options.peers_python),
            ours(algorithm),
            options.seeds,
            bar=BARS[algorithm],
        )
        comparisons.append(comparison)
        runs += [{"algorithm": algorithm, **run} for run in own]
    finish("lunarlander", comparisons, runs=runs)


if __name__ == "__main__":
    main()
