"""Trains as one of several ranks; one of them is ended as ``kill -9`` would, once, before any restart.

    torchrun ... killed_rank.py RANK MOMENT N -- ARGUMENTS OF tesserl

Moments: those of `killed_run`, which rank 0 alone has except ``collect``, and ``reduce`` (in the middle of the exchange
of gradients).
"""

import os
import sys

import killed_run

from tesserl_trainer.cli import main
from tesserl_trainer.ranks.group import Ranks

MOMENTS = {**killed_run.MOMENTS, "reduce": (Ranks, "reduce", killed_run.nothing)}

if __name__ == "__main__":
    rank, moment, number, _, *arguments = sys.argv[1:]
    if os.environ["RANK"] == rank and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        killed_run.after(int(number), *MOMENTS[moment])
    sys.exit(main(arguments))
