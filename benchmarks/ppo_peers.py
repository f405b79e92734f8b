"""Compare PPO on CartPole with sample-factory 2.1.1 and pufferlib-core 3.0.23: steps per second, same settings.

Each needs a separate environment (Python 3.11) and a C++ compiler. The first:
pip install torch==2.13.0 sample-factory==2.1.1. The second, whose wheel requires torch 2.9.0 and the libraries of CUDA:
pip install torch==2.13.0 gymnasium==1.4.0 nvidia-ml-py psutil pyro-ppl rich rich-argparse setuptools, and then
PUFFERLIB_DISABLE_CUDA=1 pip install --no-deps --no-build-isolation --no-binary :all: pufferlib-core==3.0.23
"""

from functools import partial
from pathlib import Path

import yaml

from common.harness import HEADER, Bar, Comparison, Worker, arguments, compare, finish

BENCHMARKS = Path(__file__).parent
PEERS = yaml.safe_load((BENCHMARKS / "settings/ppo_peers.yaml").read_text())
OURS = {"config": str(BENCHMARKS / "settings/ppo_cartpole.yaml"), "overrides": ["seed=1"]}
WARMUP = 1_024


def measure(name: str, python: str, ours: Worker, rounds: int, steps: int) -> Comparison:
    """Compare steps per second with one peer."""
    with Worker(f"{name}_ppo.py", {**PEERS[name], "seed": 1}, python=python) as peer:
        peer.measure(WARMUP)
        theirs, mine = partial(peer.measure, steps), partial(ours.measure, steps)
        row = compare(f"PPO on CartPole, by {name}", theirs, mine, Bar("speed"), rounds=rounds)
    print(row.line_cpu(), flush=True)
    return row


def main() -> None:
    parser = arguments(__doc__, seconds=0.0)
    parser.add_argument("--steps", type=int, default=20_480, help="environment steps of one measurement (20480)")
    for name in PEERS:
        option = f"--{name.replace('_', '-')}-python"
        parser.add_argument(option, dest=name, help=f"interpreter that has {name} installed; not measured without it")
    parser.add_argument("--quick", action="store_true", help="one short round: does everything run?")
    options = parser.parse_args()
    pythons = {name: getattr(options, name) for name in PEERS if getattr(options, name)}
    if not pythons:
        parser.error("name the interpreter of at least one peer")
    if options.quick:
        options.rounds, options.steps = 1, 2_048
    print(HEADER)
    with Worker("our_loop.py", OURS) as ours:
        ours.measure(WARMUP)
        rows = [measure(name, python, ours, options.rounds, options.steps) for name, python in pythons.items()]
    finish("ppo_peers", rows, settings=PEERS)


if __name__ == "__main__":
    main()
