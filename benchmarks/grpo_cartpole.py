"""Compare GRPO's loop on CartPole with PPO's, from the first step: environment steps per second, and time per part.

Both play 8 environments, train a policy of the same size for as many epochs, and make about as many gradient updates.
For GRPO, only steps of trajectories used for learning count; PPO also learns a value.
"""

from pathlib import Path

import yaml

from common.breakdown import breakdown, print_breakdown
from common.harness import HEADER, Bar, Measurement, Worker, arguments, compare, finish

SETTINGS = Path(__file__).parent / "settings"


def first_steps(name: str, steps: int) -> Measurement:
    """Train a new run of ``settings/<name>.yaml``."""
    with Worker("our_loop.py", {"config": str(SETTINGS / f"{name}.yaml"), "overrides": ["seed=1"]}) as worker:
        return worker.measure(steps)


def parts(name: str, steps: int) -> dict[str, float]:
    """Return the microseconds of each part of a step."""
    with Worker("our_loop.py", {"config": str(SETTINGS / f"{name}.yaml"), "overrides": ["seed=1"]}) as worker:
        return breakdown(worker, steps)


def main() -> None:
    parser = arguments(__doc__, seconds=0.0)
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps of one measurement (100000)")
    parser.add_argument("--quick", action="store_true", help="one round, few steps: does everything run?")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.steps = 1, 5_000
    print(HEADER)
    comparison = compare(
        "GRPO on CartPole, by PPO",
        lambda: first_steps("ppo_cartpole", options.steps),
        lambda: first_steps("grpo_cartpole", options.steps),
        Bar("speed", 0.8),
        rounds=options.rounds,
    )
    microseconds = {name: parts(name, options.steps) for name in ("grpo_cartpole", "ppo_cartpole")}
    print_breakdown(microseconds)
    settings = {name: yaml.safe_load((SETTINGS / f"{name}.yaml").read_text()) for name in microseconds}
    finish("grpo_cartpole", [comparison], microseconds=microseconds, settings=settings)


if __name__ == "__main__":
    main()
