"""One of two ranks, each in a network namespace of its own: ``python cut_rank.py DIRECTORY reduce|evaluate``.

Rank 0 writes ``DIRECTORY/ready``, and both go on once ``DIRECTORY/cut`` is there: the link between them is down then.
"""

import json
import os
import sys
import time
from pathlib import Path

import torch

from tesserl_ranks.failures import RankError
from tesserl_ranks.group import Ranks
from tesserl_ranks.joining import joined

RANK = int(os.environ["RANK"])


def await_file(path: Path) -> None:
    deadline = time.monotonic() + 120.0
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.02)


def work(ranks: Ranks, directory: Path, operation: str) -> None:
    parameter = torch.nn.Parameter(torch.ones(1_000))
    parameter.grad = torch.ones(1_000)
    ranks.reduce([parameter], {}, 1.0)
    if RANK == 0:
        (directory / "ready").touch()
    if operation == "evaluate":
        ranks.by_first(lambda: await_file(directory / "cut"), "evaluating")
    else:
        await_file(directory / "cut")
    ranks.reduce([parameter], {}, 1.0)


def main(directory: Path, operation: str) -> str | None:
    try:
        with joined("cpu") as ranks:
            work(ranks, directory, operation)
    except RankError as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), sys.argv[2])) + "\n")
    sys.stdout.flush()
