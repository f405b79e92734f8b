"""Compare two ranks with one: environment steps per second, and processor time.

Both sides train the same file with the same totals: environments, steps of a rollout, minibatches. The CPU ratio
compares total processor time per step over all ranks; a value below 1 is the overhead of sharing. The processor time of
one rank divided by the time of the busier of two ranks is the speed-up possible with one idle core per rank.
"""

from pathlib import Path

from common.harness import HEADER, Comparison, Worker, arguments, finish
from common.processes import compare_processes

ROOT = Path(__file__).parents[1]
CASES: dict[str, tuple[str, int, int, float | None]] = {
    "Breakout, pixels, PPO, 2 ranks": ("benchmarks/settings/ppo_breakout.yaml", 1_024, 2_048, 1.6),
    "CartPole, PPO, 2 ranks": ("benchmarks/settings/ppo_cartpole.yaml", 4_096, 20_480, None),
}
"""File, steps before the first measurement, steps of one, and the bar, for each case."""

NAMES = {"peer": "one rank", "learner": "rank 0", "worker 0": "rank 1"}


def measure(name: str, rounds: int, size: float) -> tuple[Comparison, dict[str, float]]:
    """Measure one case; return its row, and each process's seconds of processor time per 1,000 steps."""
    path, warmup, steps, least = CASES[name]
    steps = round(steps * size)
    one = {"config": str(ROOT / path), "warmup": warmup}
    with Worker("our_loop.py", one) as peer, Worker("our_loop.py", one | {"ranks": 2}) as ours:
        return compare_processes(
            name, peer, ours, steps, least, rounds, {"peer": "one rank", "learner": "rank 0", "worker 0": "rank 1"}
        )


def main() -> None:
    """Measure, print and store."""
    parser = arguments(__doc__, seconds=0.0)
    parser.add_argument("--case", action="append", choices=list(CASES), help="these alone; all by default")
    parser.add_argument("--size", type=float, default=1.0, help="steps of a measurement, relative to those of the case")
    options = parser.parse_args()
    print(HEADER)
    measured = {name: measure(name, options.rounds, options.size) for name in options.case or CASES}
    finish("ranks", [row for row, _ in measured.values()], cpu={name: cpu for name, (_, cpu) in measured.items()})


if __name__ == "__main__":
    main()
