"""Runs ``tesserl train`` and ends its own process, as ``kill -9`` would, at the n-th moment of a kind.

    python killed_run.py MOMENT N -- ARGUMENTS OF tesserl

Moments: ``collect`` (between two steps), ``log`` (half a line of metrics is written), ``checkpoint`` (half a file of a
checkpoint is written), ``segment`` (half a replay segment), ``manifest`` (before it is renamed), ``pointer`` (the
checkpoint is there, ``latest.json`` does not name it yet). With N = 0 the process lives, and writes how often each
moment came to the file MOMENT.
"""

import json
import os
import signal
import sys
from pathlib import Path

from tesserl_collectors import collector as collect
from tesserl_trainer.cli import main
from tesserl_training import logging
from tesserl_training import replay_segments as segments
from tesserl_training.checkpoints import checkpoint, run_checkpoints
from tesserl_training.checkpoints import files as checkpoint_files


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after(number: int, owner: object, name: str, last_act) -> None:
    """Makes the ``number``-th call of ``owner.name`` the last thing that this process does."""
    original, calls = getattr(owner, name), 0

    def counted(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == number:
            last_act(original, *args, **kwargs)
            die()
        return original(*args, **kwargs)

    setattr(owner, name, counted)


def half_a_file(original, path, *arguments) -> None:
    original(path, *arguments)
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) // 2])


def half_a_line(original, log, step, metrics) -> None:
    original(log, step, metrics)
    content = log.path.read_bytes()
    log.path.write_bytes(content[:-7])


def nothing(original, *args, **kwargs) -> None:
    """The call itself never happens."""


MOMENTS = {
    "collect": (collect.Collector, "collect", nothing),
    "log": (logging.MetricsLog, "log", half_a_line),
    "checkpoint": (checkpoint_files, "save_tensors", half_a_file),
    "segment": (segments, "write_tensors", half_a_file),
    "manifest": (checkpoint, "digest", nothing),
    "pointer": (run_checkpoints, "write_json", nothing),
}


def count(counts: dict[str, int], moment: str) -> None:
    """Counts the calls behind a moment."""
    owner, name, _ = MOMENTS[moment]
    original = getattr(owner, name)

    def counted(*args, **kwargs):
        counts[moment] = counts.get(moment, 0) + 1
        return original(*args, **kwargs)

    setattr(owner, name, counted)


if __name__ == "__main__":
    moment, number, _, *arguments = sys.argv[1:]
    if int(number):
        after(int(number), *MOMENTS[moment])
        sys.exit(main(arguments))
    counts: dict[str, int] = {}
    for name in MOMENTS:
        count(counts, name)
    code = main(arguments)
    Path(moment).write_text(json.dumps(counts))
    sys.exit(code)
