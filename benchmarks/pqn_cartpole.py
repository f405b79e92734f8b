"""Compare PQN's loop on CartPole with PPO's: environment steps per second from the first step, and their parts.

Both play 8 environments, 128 steps of each in a rollout, for 4 epochs of 4 minibatches, with two layers of 64 units.
PQN has LayerNorm in them and one network instead of two; PPO draws from a distribution.
"""

from pathlib import Path

import yaml

from common.breakdown import breakdown, print_breakdown
from common.harness import HEADER, Bar, Measurement, Worker, arguments, compare, finish

SETTINGS = Path(__file__).parent / "settings"
QUANTILES = ("pqn.num_quantiles=16",)


def first_steps(name: str, steps: int, overrides: tuple[str, ...] = ()) -> Measurement:
    """Train a new run of ``settings/<name>.yaml``."""
    with Worker(
        "our_loop.py", {"config": str(SETTINGS / f"{name}.yaml"), "overrides": ["seed=1", *overrides]}
    ) as worker:
        return worker.measure(steps)


def parts(name: str, steps: int) -> dict[str, float]:
    """Return the microseconds of each part of a step."""
    with Worker("our_loop.py", {"config": str(SETTINGS / f"{name}.yaml"), "overrides": ["seed=1"]}) as worker:
        return breakdown(worker, steps)


def main() -> None:
    """Measure, print and store."""
    parser = arguments(__doc__, seconds=0.0)
    parser.add_argument("--steps", type=int, default=50_000, help="environment steps of one measurement (50000)")
    parser.add_argument("--quick", action="store_true", help="one round, few steps: does everything run?")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.steps = 1, 5_000
    print(HEADER)
    comparisons = [
        compare(
            title,
            lambda: first_steps("ppo_cartpole", options.steps),
            lambda overrides=overrides: first_steps("pqn_cartpole", options.steps, overrides),
            Bar("speed", least),
            rounds=options.rounds,
        )
        for title, overrides, least in (
            ("PQN on CartPole, by PPO", (), 0.8),
            ("PQN with 16 quantiles on CartPole, by PPO", QUANTILES, 0.5),
        )
    ]
    microseconds = {name: parts(name, options.steps) for name in ("pqn_cartpole", "ppo_cartpole")}
    print_breakdown(microseconds)
    settings = {name: yaml.safe_load((SETTINGS / f"{name}.yaml").read_text()) for name in microseconds}
    finish("pqn_cartpole", comparisons, microseconds=microseconds, settings=settings)


if __name__ == "__main__":
    main()
