"""Trains as one of several ranks; one of them is ended as ``kill -9`` would, once, before any restart.

    torchrun ... killed_rank.py RANK MOMENT N -- ARGUMENTS OF tesserl

Moments: those of `killed_run`, which rank 0 alone has except ``collect``, and ``reduce`` (in the middle of the exchange
of gradients). At the moment ``terminate``, the n-th round, the rank lives and sends a SIGTERM to ``torchrun``.
"""

import os
import signal
import sys

import killed_run

from tesserl_ranks.group import Ranks
from tesserl_trainer.cli import main
from tesserl_training.journal import Journal
from tesserl_training.replay_segments import Segments

MOMENTS = {**killed_run.MOMENTS, "reduce": (Ranks, "reduce", killed_run.nothing)}


def terminate_in(number: int) -> None:
    begin_round, rounds = Journal.begin_round, 0

    def counted(journal: Journal) -> int:
        nonlocal rounds
        rounds += 1
        if rounds == number:
            os.kill(os.getppid(), signal.SIGTERM)
        return begin_round(journal)

    Journal.begin_round = counted


if __name__ == "__main__":
    rank, moment, number, _, *arguments = sys.argv[1:]
    Segments.__init__.__kwdefaults__ = {"size": 32}  # as in `ranked`
    if os.environ["RANK"] == rank and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        if moment == "terminate":
            terminate_in(int(number))
        else:
            killed_run.after(int(number), *MOMENTS[moment])
    sys.exit(main(arguments))
