"""One process of several ranks that goes through a list of scenarios: ``python ranked.py DIRECTORY``.

``DIRECTORY/plan.json`` lists the port, the name and the arguments of each scenario; what a scenario returns is a line
of ``DIRECTORY/RANK.jsonl``. One process does them all, because importing torch takes longer than most of them.
"""

import json
import os
import sys
import time
from pathlib import Path

import torch
from torch import nn

from tesserl_nn_components import RunningNormalizer
from tesserl_ranks import RankError, Ranks, joined, state_of_all
from tesserl_ranks.failures import GRACE

RANK = int(os.environ.get("RANK", "0"))


def statistics() -> list[float]:
    """Return how far agreed statistics are from those of all features, and whether the ranks have equal bits."""
    with joined("cpu") as ranks:
        agreed, whole = RunningNormalizer(2), RunningNormalizer(2)
        for turn in range(3):
            generator = torch.Generator().manual_seed(turn)
            features = [1e3 + torch.randn(number, 2, generator=generator) for number in (5, 9, 0)][: ranks.number]
            ranks.update_statistics(agreed, features[RANK])
            whole.update(torch.cat(features))
        same = ranks.gather([agreed.mean.tolist(), agreed.variance.tolist(), int(agreed.count)])
        difference = max((agreed.mean - whole.mean).abs().max(), (agreed.variance - whole.variance).abs().max())
        return [float(difference), float(same[0] == same[-1]), float(agreed.count - whole.count)]


def agreement() -> list[object]:
    """Return what the ranks agree on."""
    with joined("cpu") as ranks:
        ranks.seed(11)
        torch.manual_seed(RANK)
        before = torch.get_rng_state()
        with ranks.agreed():
            drawn = [torch.rand(()).item()]
        with ranks.agreed():
            drawn.append(torch.rand(()).item())
        return [
            torch.equal(before, torch.get_rng_state()),
            drawn,
            ranks.total(RANK + 1),
            ranks.some(RANK == 1),
            ranks.every(RANK == 1),
            ranks.by_first(lambda: ["of rank 0", RANK], "testing"),
            ranks.share(torch.arange(3))[0].tolist(),
            ranks.share(torch.arange(1))[1],
        ]


def failures(kind: str) -> str:
    """Return the message of an error that one of the ranks causes."""
    try:
        with joined("cpu") as ranks:
            return _fail(ranks, kind)
    except (RankError, ValueError) as error:
        return str(error)


def _fail(ranks: Ranks, kind: str) -> str:
    match kind:
        case "weights":
            parameter = nn.Parameter(torch.full((2,), float(RANK)))
            state_of_all(ranks, {"networks": {"weight": parameter}, "optimizer": {}}, 1200)
        case "first":
            ranks.by_first(lambda: int("nothing"), "counting")
        case "other":
            if RANK == 1:
                raise ValueError("rank 1 cannot go on")
            ranks.total(1)
        case "absent":
            if RANK == 1:  # it stays away, alive, until rank 0 has given up
                while not ranks.store.check(["stopped/0"]):
                    time.sleep(0.05)
                time.sleep(2 * GRACE)
            else:
                ranks.total(1)
    return "no error"


SCENARIOS = {each.__name__: each for each in (statistics, agreement, failures)}

if __name__ == "__main__":
    directory = Path(sys.argv[1])
    with (directory / f"{RANK}.jsonl").open("w") as results:
        for port, name, arguments in json.loads((directory / "plan.json").read_text()):
            os.environ["MASTER_PORT"] = str(port)
            results.write(json.dumps(SCENARIOS[name](**arguments)) + "\n")
            results.flush()
