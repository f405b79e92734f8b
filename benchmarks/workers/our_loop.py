"""A loop of this project on a configuration. A request is a number of steps to train, "laps" or "processes".

With the setting ``target`` it answers one request only: the limit of steps to train until a greedy evaluation reaches
the target. With the setting ``ranks``, that many processes train together; this one is rank 0.
"""

import json
import multiprocessing
import os
import socket
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from stdio import Clock, cpu_of_processes, serve
from torch import Tensor

from tesserl_collectors.evaluation import Evaluation
from tesserl_collectors.process import prepare_process
from tesserl_collectors.process_collector import ProcessCollector
from tesserl_configs import load_config
from tesserl_ranks.joining import joined
from tesserl_storage.generators import seed_generators
from tesserl_trainer.algorithms import builder_of
from tesserl_trainer.algorithms.run import Run
from tesserl_trainer.algorithms.sharing import part_of
from tesserl_trainer.algorithms.task import Task
from tesserl_training.journal import Loop
from tesserl_training.progress import ProgressDisplay


def train(loop: Loop, steps: int, clock: Clock, target: float = float("inf")) -> dict[str, float]:
    """Train ``steps`` more steps, or until an evaluation reaches ``target``; evaluations stop the clock."""
    journal = loop.journal
    last, start = journal.step + steps, journal.step
    player = journal.evaluations.player
    begin, result, advance = player.begin, player.result, journal.progress.advance
    best = float("-inf")

    def begin_off_the_clock(weights: Mapping[str, Tensor] | None = None) -> None:
        with clock.stopped():
            begin(weights)

    def result_off_the_clock() -> Evaluation:
        nonlocal best
        with clock.stopped():
            evaluation = result()
        best = max(best, evaluation.return_mean)
        journal.stop = journal.stop or best >= target
        return evaluation

    def advance_until_last(step: int) -> None:
        advance(step)
        journal.stop = journal.stop or step >= last

    journal.stop = journal.agreed_stop = False
    player.begin, player.result = begin_off_the_clock, result_off_the_clock
    journal.progress.advance = advance_until_last
    journal.laps.lap("waiting")
    loop.run()
    if isinstance(getattr(loop, "collector", None), ProcessCollector):
        loop.collector.workers.finish_round()  # the workers started it during this measurement
    player.begin, player.result, journal.progress.advance = begin, result, advance
    answer = {"count": journal.step - start, **clock.read()}
    return answer | {"best": best, "reached": best >= target} if target < float("inf") else answer


def build(settings: dict[str, Any], stack: ExitStack) -> Loop:
    """Build the loop of this process."""
    config = load_config(settings["config"], settings.get("overrides", ()))
    prepare_process(config.num_threads)
    seed_generators(config.seed)
    run_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    ranks = stack.enter_context(joined(config.device))
    part = part_of(config, ranks, ranks.rank)
    progress = stack.enter_context(ProgressDisplay(config.total_steps, quiet=ranks.rank > 0))
    task = Task(part, first_environment=ranks.rank * part.environment.num_envs)
    loop = builder_of(config.algorithm).build_loop(task, Run(run_dir, progress, stack, ranks))
    loop.journal.log.open(resume_step=None)
    loop.save = lambda: run_dir  # the peers write no checkpoints either
    loop.journal.checkpoints.mark_best = lambda _: None
    if settings.get("warmup"):
        train(loop, settings["warmup"], Clock())
    return loop


def follow(settings: dict[str, Any], rank: int, port: int, requests: Connection) -> None:
    """Train as another rank whatever rank 0 trains, until rank 0 ends."""
    name_rank(settings, rank, port)
    with ExitStack() as stack, suppress(EOFError):
        loop = build(settings, stack)
        while True:
            train(loop, requests.recv(), Clock())


def name_rank(settings: dict[str, Any], rank: int, port: int) -> None:
    """Set the environment variables that torchrun sets."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": settings["ranks"], "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in told.items()} | {"MASTER_ADDR": "127.0.0.1"}


def start_ranks(settings: dict[str, Any]) -> list[Connection]:
    """Start the other ranks; return the connections for requests to them."""
    if settings.get("ranks", 1) == 1:
        return []
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    context, ends = multiprocessing.get_context("spawn"), []
    for rank in range(1, settings["ranks"]):
        theirs, ours = context.Pipe(duplex=False)
        context.Process(target=follow, args=(settings, rank, port, theirs), daemon=True).start()
        theirs.close()
        ends.append(ours)
    name_rank(settings, 0, port)
    return ends


def main() -> None:
    settings = json.loads(sys.argv[1])
    target = settings.get("target", float("inf"))
    others = start_ranks(settings)
    with ExitStack() as stack:
        loop = build(settings, stack)

        def answer(request: int | str) -> dict[str, float]:
            if request == "laps":
                return loop.journal.laps.seconds
            if request == "processes":
                return cpu_of_processes()
            for other in others:
                other.send(int(request))
            return train(loop, int(request), Clock(), target)

        serve(answer)


if __name__ == "__main__":
    main()
