"""PPO on Breakout from pixels, end to end: agent steps per second against SB3."""

import sys
from pathlib import Path

import yaml

from common.breakdown import breakdown, print_breakdown
from common.harness import HEADER, Bar, Worker, arguments, compare, finish

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "benchmarks/settings/ppo_breakout.yaml"
SB3 = yaml.safe_load((ROOT / "benchmarks/settings/sb3_ppo.yaml").read_text())["breakout_speed"]


def main() -> None:
    parser = arguments(__doc__, seconds=0.0)
    parser.add_argument("--steps", type=int, default=1_024, help="agent steps of one measurement (1024: a rollout)")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has SB3 installed")
    parser.add_argument("--quick", action="store_true", help="one round: does everything run?")
    options = parser.parse_args()
    print(HEADER)
    with (
        Worker("sb3_ppo.py", {**SB3, "seed": 1}, python=options.peers_python) as peer,
        Worker("our_loop.py", {"config": str(CONFIG), "overrides": ["seed=1"]}) as ours,
    ):
        for side in (peer, ours):
            side.measure(1_024)
        comparison = compare(
            "PPO on Breakout, by SB3",
            lambda: peer.measure(options.steps),
            lambda: ours.measure(options.steps),
            Bar("speed", 1.3),
            rounds=1 if options.quick else options.rounds,
        )
        parts = {"ours": breakdown(ours, options.steps)}
    print_breakdown(parts)
    finish("ppo_breakout", [comparison], microseconds=parts)


if __name__ == "__main__":
    main()
