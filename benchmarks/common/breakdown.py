"""Breakdown of a training loop's time."""

from common.harness import Worker

Parts = dict[str, float]  # microseconds per environment step


def breakdown(worker: Worker, steps: int) -> Parts:
    """Return the microseconds per environment step of each activity."""
    before = worker.ask("laps")
    count = worker.ask(steps)["count"]
    after = worker.ask("laps")
    return {
        name: 1e6 * (seconds - before.get(name, 0.0)) / count for name, seconds in after.items() if name != "waiting"
    }


def print_breakdown(parts: dict[str, Parts]) -> None:
    print(f"{'microseconds of an environment step':<44}" + "".join(f"{side:>12}" for side in parts))
    for name in dict.fromkeys(name for times in parts.values() for name in times):
        print(f"  {name:<42}" + "".join(f"{times.get(name, 0.0):12.1f}" for times in parts.values()))
    print(f"  {'all':<42}" + "".join(f"{sum(times.values()):12.1f}" for times in parts.values()))
