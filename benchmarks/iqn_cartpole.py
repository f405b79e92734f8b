"""IQN on CartPole end to end: steps per second against Tianshou, time to a solved task against sb3-contrib's QR-DQN."""

import statistics
import sys
from pathlib import Path

from common.harness import HEADER, Bar, Comparison, Worker, arguments, compare, finish

ROOT = Path(__file__).parents[1]
TARGET, EPISODES, INTERVAL = 475.0, 20, 2_000


def speed(rounds: int, steps: int, python: str) -> Comparison:
    """Environment steps per second at the same settings; learning is under way in both before the first round."""
    ours_settings = {"config": str(ROOT / "benchmarks/settings/iqn_cartpole.yaml"), "overrides": ["seed=1"]}
    with (
        Worker("tianshou_iqn.py", {"seed": 1}, python=python) as peer,
        Worker("our_iqn.py", ours_settings) as ours,
    ):
        for side in (peer, ours):
            side.measure(steps)
        return compare(
            "IQN on CartPole, by Tianshou",
            lambda: peer.measure(steps),
            lambda: ours.measure(steps),
            Bar("speed", 2.0),
            rounds=rounds,
        )


def solve(script: str, settings: dict[str, object], steps: int, python: str) -> dict[str, float]:
    with Worker(script, settings, python=python) as worker:
        return worker.ask(steps)


def time_to_target(seeds: int, python: str) -> tuple[Comparison, list[dict[str, object]]]:
    """Seconds of training until a greedy evaluation reaches the target; a run that never does counts whole."""
    runs: list[dict[str, object]] = []
    for seed in range(1, seeds + 1):
        zoo = {"seed": seed, "target": TARGET, "episodes": EPISODES, "interval": INTERVAL}
        peer = solve("sb3_qrdqn.py", zoo, 50_000, python)
        overrides = [f"seed={seed}", f"evaluation.interval={INTERVAL}", f"evaluation.episodes={EPISODES}"]
        ours_settings = {
            "config": str(ROOT / "configs/iqn/cartpole.yaml"),
            "overrides": overrides,
            "target": TARGET,
        }
        ours = solve("our_iqn.py", ours_settings, 60_000, sys.executable)
        runs += [{"side": "QR-DQN", "seed": seed, **peer}, {"side": "IQN", "seed": seed, **ours}]
        for run in runs[-2:]:
            print(
                f"  {run['side']:<7} seed {seed}: {run['count']:>6.0f} steps, {run['wall']:6.1f} s "
                f"({run['cpu']:.1f} s of processor time), best {run['best']:.0f}",
                flush=True,
            )
    seconds = {
        (side, clock): [float(run[clock]) for run in runs if run["side"] == side]  # type: ignore[arg-type]
        for side in ("QR-DQN", "IQN")
        for clock in ("wall", "cpu")
    }
    median = {key: statistics.median(values) for key, values in seconds.items()}
    ratio = median["IQN", "wall"] / median["QR-DQN", "wall"]
    ratios = sorted(a / b for a, b in zip(seconds["IQN", "wall"], seconds["QR-DQN", "wall"], strict=True))
    bar = Bar("cost", 1.0)
    result = Comparison(
        name="seconds to a return of 475, by QR-DQN",
        bar=str(bar),
        ratio=ratio,
        ratio_low=ratios[0],
        ratio_high=ratios[-1],
        ratio_cpu=median["IQN", "cpu"] / median["QR-DQN", "cpu"],
        itself=1.0,
        ours=1 / median["IQN", "wall"],
        peer=1 / median["QR-DQN", "wall"],
        rounds=seeds,
        holds=bar.holds(ratio),
    )
    print(result.line(), flush=True)
    return result, runs


def main() -> None:
    parser = arguments(__doc__, seconds=0.0)
    parser.add_argument("--steps", type=int, default=4_000, help="environment steps of one measurement (4000)")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of the time to the target (5)")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has the peers installed")
    parser.add_argument("--part", choices=["speed", "target", "both"], default="both")
    options = parser.parse_args()
    print(HEADER)
    comparisons, runs = [], []
    if options.part != "target":
        comparisons.append(speed(options.rounds, options.steps, options.peers_python))
    if options.part != "speed":
        comparison, runs = time_to_target(options.seeds, options.peers_python)
        comparisons.append(comparison)
    finish("iqn_cartpole", comparisons, runs=runs)


if __name__ == "__main__":
    main()
