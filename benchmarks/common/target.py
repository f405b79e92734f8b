"""Measure seconds of training until a greedy evaluation reaches a return: a run per seed, alternating the sides."""

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass

from common.harness import Bar, Comparison, Worker


@dataclass(frozen=True)
class Contestant:
    """A worker that trains until a target; ``settings`` gives its settings for a seed, ``steps`` limits the steps."""

    label: str
    script: str
    settings: Callable[[int], dict[str, object]]
    steps: int
    python: str = sys.executable

    def run(self, seed: int) -> dict[str, object]:
        with Worker(self.script, self.settings(seed), python=self.python) as worker:
            return {"side": self.label, "seed": seed, **worker.ask(self.steps)}


def time_to_target(
    name: str, peer: Contestant, ours: Contestant, seeds: int, *, bar: float = 1.0
) -> tuple[Comparison, list[dict[str, object]]]:
    """Compare the medians over the seeds 1, 2, ...; a run that misses the target counts with its whole time.

    Args:
        bar: largest cost that holds.

    Returns:
        The row, and the answers of all runs.
    """
    runs: list[dict[str, object]] = []
    for seed in range(1, seeds + 1):
        for side in (peer, ours):
            run = side.run(seed)
            runs.append(run)
            print(
                f"  {run['side']:<7} seed {seed}: {run['count']:>6.0f} steps, {run['wall']:6.1f} s "
                f"({run['cpu']:.1f} s of processor time), best {run['best']:.0f}"
                f"{'' if run['reached'] else ', NOT REACHED'}",
                flush=True,
            )
    seconds = {
        (side.label, clock): [float(run[clock]) for run in runs if run["side"] == side.label]  # type: ignore[arg-type]
        for side in (peer, ours)
        for clock in ("wall", "cpu")
    }
    median = {key: statistics.median(values) for key, values in seconds.items()}
    ratio = median[ours.label, "wall"] / median[peer.label, "wall"]
    ratios, ratios_cpu = (
        sorted(own / other for own, other in zip(seconds[ours.label, clock], seconds[peer.label, clock], strict=True))
        for clock in ("wall", "cpu")
    )
    required = Bar("cost", bar)
    result = Comparison(
        name=name,
        bar=str(required),
        ratio=ratio,
        ratio_low=ratios[0],
        ratio_high=ratios[-1],
        ratio_cpu=median[ours.label, "cpu"] / median[peer.label, "cpu"],
        ratio_cpu_low=ratios_cpu[0],
        ratio_cpu_high=ratios_cpu[-1],
        itself=1.0,
        ours=1 / median[ours.label, "wall"],
        peer=1 / median[peer.label, "wall"],
        ours_cpu=1 / median[ours.label, "cpu"],
        peer_cpu=1 / median[peer.label, "cpu"],
        rounds=seeds,
        holds=required.holds(ratio),
    )
    print(result.line(), flush=True)
    return result, runs
