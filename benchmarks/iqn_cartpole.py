"""IQN on CartPole end to end: steps per second against Tianshou, time to a solved task against sb3-contrib's QR-DQN.

A second speed comparison turns off the check of the whole buffer by Tianshou's trainer (``workers/tianshou_iqn.py``).
"""

import sys
from pathlib import Path

import yaml

from common.harness import HEADER, Bar, Comparison, Worker, arguments, compare, finish
from common.target import Contestant, time_to_target

ROOT = Path(__file__).parents[1]
PEERS = yaml.safe_load((ROOT / "benchmarks/settings/iqn_peers.yaml").read_text())
TARGET, EPISODES, INTERVAL = 475.0, 20, 2_000


def speed(name: str, bar: float, rounds: int, steps: int, python: str, *, check_buffer: bool) -> Comparison:
    """Environment steps per second at the same settings; learning is under way in both before the first round."""
    config = str(ROOT / "benchmarks/settings/iqn_cartpole.yaml")
    settings = {**PEERS["tianshou_cartpole"], "seed": 1, "check_buffer": check_buffer}
    with (
        Worker("tianshou_iqn.py", settings, python=python) as peer,
        Worker("our_loop.py", {"config": config, "overrides": ["seed=1"], "warmup": 1_000}) as ours,
    ):
        for side in (peer, ours):
            side.measure(steps)
        return compare(
            name,
            lambda: peer.measure(steps),
            lambda: ours.measure(steps),
            Bar("speed", bar),
            rounds=rounds,
        )


def target(seeds: int, python: str) -> tuple[Comparison, list[dict[str, object]]]:
    """Seconds of training until a greedy evaluation reaches the target."""
    often = {"interval": INTERVAL, "episodes": EPISODES, "seed": 10_000, "max_episode_steps": 500}
    zoo = {**PEERS["qrdqn_cartpole_target"], "target": TARGET, "evaluation": often}
    evaluation = [f"evaluation.interval={INTERVAL}", f"evaluation.episodes={EPISODES}"]
    ours = {"config": str(ROOT / "configs/iqn/cartpole.yaml"), "target": TARGET}
    return time_to_target(
        "seconds to a return of 475, by QR-DQN",
        Contestant("QR-DQN", "sb3_qrdqn.py", lambda seed: {"seed": seed, **zoo}, 50_000, python),
        Contestant("IQN", "our_loop.py", lambda seed: {"overrides": [f"seed={seed}", *evaluation], **ours}, 60_000),
        seeds,
    )


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
        measured = options.rounds, options.steps, options.peers_python
        comparisons += [
            speed("IQN on CartPole, by Tianshou", 2.0, *measured, check_buffer=True),
            speed("the same, without its check", 1.8, *measured, check_buffer=False),
        ]
    if options.part != "speed":
        comparison, runs = target(options.seeds, options.peers_python)
        comparisons.append(comparison)
    finish("iqn_cartpole", comparisons, runs=runs)


if __name__ == "__main__":
    main()
