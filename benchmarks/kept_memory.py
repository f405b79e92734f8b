"""Compare updates on images with memory that the process keeps, and with glibc's default of returning memory."""

from common.harness import HEADER, Bar, Comparison, Worker, arguments, compare, finish

CASES = {("nature", 32): 12, ("nature", 256): 2, ("impala", 32): 4, ("impala", 256): 1}
"""Encoder and images per update -> updates of one measurement."""


def measure(encoder: str, batch_size: int, updates: int, rounds: int) -> Comparison:
    """Measure one case."""
    settings = {"encoder": encoder, "batch_size": batch_size}
    with (
        Worker("pictures_update.py", settings | {"keep": False}) as peer,
        Worker("pictures_update.py", settings | {"keep": True}) as ours,
    ):
        for side in (peer, ours):
            side.measure(3)  # warm-up: glibc adapts its limits
        return compare(
            f"{encoder}, {batch_size} pictures",
            lambda: peer.measure(updates),
            lambda: ours.measure(updates),
            Bar("cost", None),
            rounds=rounds,
        )


def main() -> None:
    options = arguments(__doc__, seconds=0.0).parse_args()
    print(HEADER)
    finish("kept_memory", [measure(*case, updates, options.rounds) for case, updates in CASES.items()])


if __name__ == "__main__":
    main()
