"""Compare worker processes that collect with collecting in turns: environment steps per second, and processor time.

Both sides train the same file with the same number of environments. The CPU ratio compares total processor time per
step, including workers; a value below 1 is the overhead of the processes. One process's total processor time divided
by the time of the slowest of several processes is the speed-up possible with one idle core per process.
"""

from pathlib import Path

from common.harness import HEADER, Comparison, Worker, arguments, finish
from common.processes import compare_processes

ROOT = Path(__file__).parents[1]
OFF = (
    "evaluation.interval=1000000000",
    "checkpoint.interval=1000000000",
    "logging={interval: 1000000, tensorboard: false}",
    "total_steps=1000000000",
)
CASES: dict[str, tuple[str, tuple[str, ...], int, int, int, float | None]] = {
    "CarRacing, IQN, 1 worker": (
        "configs/iqn/btr_carracing.yaml",
        ("btr={}", "replay.warmup_steps=200", *OFF),
        1,
        400,
        400,
        1.5,
    ),
    "64 sleeping environments, PPO, 8 workers": (
        "benchmarks/settings/collectors_sleeping.yaml",
        (),
        8,
        2_048,
        4_096,
        6.0,
    ),
    "CartPole, PPO, 1 worker": ("benchmarks/settings/ppo_cartpole.yaml", (), 1, 4_096, 20_480, None),
    "CartPole, IQN, 1 worker": ("benchmarks/settings/iqn_cartpole.yaml", (), 1, 2_000, 2_000, None),
}
"""File, overrides, workers, steps before the first measurement, steps of one, and the bar, for each case."""


def measure(name: str, rounds: int) -> tuple[Comparison, dict[str, float]]:
    """Measure one case; return its row, and each process's seconds of processor time per 1,000 steps."""
    path, overrides, number, warmup, steps, least = CASES[name]
    local = {"config": str(ROOT / path), "overrides": list(overrides), "warmup": warmup}
    process = local | {"overrides": [*overrides, f"collectors={{kind: process, workers: {number}}}"]}
    with Worker("our_loop.py", local) as peer, Worker("our_loop.py", process) as ours:
        return compare_processes(name, peer, ours, steps, least, rounds, {"peer": "local"})


def main() -> None:
    """Measure, print and store."""
    parser = arguments(__doc__, seconds=0.0)
    parser.add_argument("--case", action="append", choices=list(CASES), help="these alone; all by default")
    options = parser.parse_args()
    print(HEADER)
    measured = {name: measure(name, options.rounds) for name in options.case or CASES}
    finish("collectors", [row for row, _ in measured.values()], cpu={name: cpu for name, (_, cpu) in measured.items()})


if __name__ == "__main__":
    main()
