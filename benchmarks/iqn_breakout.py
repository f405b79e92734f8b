"""IQN on Breakout from pixels, end to end: agent steps per second against Tianshou, in float32 and in bfloat16.

A second comparison, without a bar, turns off Tianshou's check of the whole buffer (see ``workers/tianshou_iqn.py``).
"""

import sys
from pathlib import Path

import yaml

from common.breakdown import breakdown, print_breakdown
from common.harness import HEADER, Bar, Worker, arguments, compare, finish

SETTINGS = Path(__file__).parent / "settings"
BFLOAT16 = ["iqn.precision=bfloat16"]
SIDES = {  # what differs from settings/iqn_breakout.yaml, whether Tianshou checks its buffer, and the bar
    "IQN on Breakout, by Tianshou": ([], True, 1.6),
    "the same in bfloat16": (BFLOAT16, True, 3.0),
    "by Tianshou without its check": ([], False, None),
    "the same in bfloat16, without": (BFLOAT16, False, None),
}


def main() -> None:
    parser = arguments(__doc__, seconds=0.0)
    parser.add_argument("--steps", type=int, default=256, help="agent steps of one measurement (256)")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has Tianshou installed")
    parser.add_argument("--quick", action="store_true", help="one round: does everything run?")
    options = parser.parse_args()
    settings = yaml.safe_load((SETTINGS / "iqn_peers.yaml").read_text())["tianshou_breakout"]
    comparisons, parts = [], {}
    print(HEADER)
    for name, (overrides, checked, limit) in SIDES.items():
        ours = {"config": str(SETTINGS / "iqn_breakout.yaml"), "overrides": ["seed=1", *overrides], "warmup": 1_000}
        with (
            Worker(
                "tianshou_iqn.py", {**settings, "seed": 1, "check_buffer": checked}, python=options.peers_python
            ) as peer,
            Worker("our_loop.py", ours) as own,
        ):
            for side in (peer, own):
                side.measure(options.steps)
            comparisons.append(
                compare(
                    name,
                    lambda: peer.measure(options.steps),
                    lambda: own.measure(options.steps),
                    Bar("speed", limit),
                    rounds=1 if options.quick else options.rounds,
                )
            )
            parts["bfloat16" if overrides else "float32"] = breakdown(own, options.steps)
    print_breakdown(parts)
    finish("iqn_breakout", comparisons, microseconds=parts)


if __name__ == "__main__":
    main()
