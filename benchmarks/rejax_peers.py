"""Compare PPO and PQN with rejax, where JAX compiles training and environment into one program: an upper bound.

rejax needs a separate environment (Python 3.11): pip install rejax==0.1.3 "gymnax<1" "jax<0.12" "gymnasium<1.4".
"""

from functools import partial
from pathlib import Path

import yaml

from common.harness import HEADER, Bar, Comparison, Worker, arguments, compare, finish

BENCHMARKS = Path(__file__).parent
REJAX = yaml.safe_load((BENCHMARKS / "settings/rejax.yaml").read_text())
OURS = {  # name in rejax.yaml -> our file, steps of one measurement
    "cartpole_ppo": (BENCHMARKS / "settings/ppo_cartpole.yaml", 20_480),
    "cartpole_pqn": (BENCHMARKS / "settings/pqn_cartpole.yaml", 20_480),
    "breakout_ppo": (BENCHMARKS.parent / "configs/ppo/minatar_breakout.yaml", 10_240),
    "breakout_pqn": (BENCHMARKS.parent / "configs/pqn/minatar_breakout.yaml", 20_480),
}


def measure(name: str, python: str, rounds: int) -> Comparison:
    """Compare steps per second of one algorithm on one task."""
    config, steps = OURS[name]
    with (
        Worker("rejax_train.py", REJAX[name], python=python) as peer,
        Worker("our_loop.py", {"config": str(config), "overrides": ["seed=1"], "warmup": 4_096}) as ours,
    ):
        theirs, mine = partial(peer.measure, steps), partial(ours.measure, steps)
        row = compare(f"{name.replace('_', ', ')}, by rejax", theirs, mine, Bar("speed"), rounds=rounds)
    print(row.line_cpu(), flush=True)
    return row


def main() -> None:
    parser = arguments(__doc__, seconds=0.0)
    parser.add_argument("--peers-python", required=True, help="interpreter that has rejax installed")
    parser.add_argument("--only", choices=list(OURS), action="append", help="may be repeated; all")
    options = parser.parse_args()
    print(HEADER)
    rows = [measure(name, options.peers_python, options.rounds) for name in options.only or OURS]
    finish("rejax_peers", rows, settings=REJAX)


if __name__ == "__main__":
    main()
