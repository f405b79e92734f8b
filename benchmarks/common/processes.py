"""Compare a loop in several processes with one process, by wall time and by each process's processor time."""

from collections.abc import Mapping

from common.harness import Bar, Comparison, Worker, compare


def compare_processes(
    name: str, peer: Worker, ours: Worker, steps: int, least: float | None, rounds: int, names: Mapping[str, str]
) -> tuple[Comparison, dict[str, float]]:
    """Compare steps per second; return the row, and each process's seconds of processor time per 1,000 steps.

    Args:
        name: name of the case.
        peer: the loop in one process.
        ours: the loop in several processes.
        steps: environment steps of one measurement.
        least: the bar, a lower bound on the ratio of speeds.
        rounds: number of rounds of peer, ours, peer.
        names: new names in the result, for ``"peer"`` and for processes by the worker's name.
    """

    def taken() -> dict[str, float]:
        return {"peer": peer.ask("processes")["learner"], **ours.ask("processes")}

    before = taken()
    row = compare(name, lambda: peer.measure(steps), lambda: ours.measure(steps), Bar("speed", least), rounds=rounds)
    measured = {key: rounds * steps * (2 if key == "peer" else 1) for key in before}  # the peer runs twice per round
    seconds = {key: 1_000 * (after - before[key]) / measured[key] for key, after in taken().items()}
    busiest = max(share for key, share in seconds.items() if key != "peer")
    named = {names.get(key, key): share for key, share in seconds.items()}
    print(f"    CPU seconds per 1,000 steps: { ({key: round(share, 2) for key, share in named.items()}) }")
    print(f"    {names['peer']}'s by those of the busiest other: {seconds['peer'] / busiest:.2f}", flush=True)
    return row, named
