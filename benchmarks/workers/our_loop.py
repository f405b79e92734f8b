"""A loop of this project on a configuration. A request is a number of steps to train, "laps" or "processes".

With the setting ``target`` it answers one request only: the most steps to train until a greedy evaluation reaches it.
"""

import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import torch
from stdio import Clock, cpu_of_processes, serve

from tesserl_configs import load_config
from tesserl_trainer.algorithms import builder_of
from tesserl_trainer.algorithms.run import Run
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.checkpoints.state import seed_generators
from tesserl_trainer.collecting.evaluation import Evaluation
from tesserl_trainer.distributed.process_collector import ProcessCollector
from tesserl_trainer.training.journal import Loop
from tesserl_trainer.training.progress import ProgressDisplay


def train(loop: Loop, steps: int, clock: Clock, target: float = float("inf")) -> dict[str, float]:
    """Trains ``steps`` more steps, or until an evaluation reaches ``target``; evaluations stop the clock."""
    journal = loop.journal
    last, start = journal.step + steps, journal.step
    evaluate, advance = journal.evaluate, journal.progress.advance
    best = float("-inf")

    def evaluate_off_the_clock() -> Evaluation:
        nonlocal best
        with clock.stopped():
            evaluation = evaluate()
        best = max(best, evaluation.return_mean)
        journal.stop = journal.stop or best >= target
        return evaluation

    def advance_until_last(step: int) -> None:
        advance(step)
        journal.stop = journal.stop or step >= last

    journal.stop, journal.evaluate, journal.progress.advance = False, evaluate_off_the_clock, advance_until_last
    journal.laps.lap("waiting")
    loop.run()
    if isinstance(getattr(loop, "collector", None), ProcessCollector):
        loop.collector.workers.finish_round()  # the workers have begun it on this side's time
    journal.evaluate, journal.progress.advance = evaluate, advance
    answer = {"count": journal.step - start, **clock.read()}
    return answer | {"best": best, "reached": best >= target} if target < float("inf") else answer


def main() -> None:
    settings = json.loads(sys.argv[1])
    config = load_config(settings["config"], settings.get("overrides", ()))
    torch.set_num_threads(config.num_threads)
    seed_generators(config.seed)
    target = settings.get("target", float("inf"))
    with ExitStack() as stack:
        run_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        run = Run(run_dir, stack.enter_context(ProgressDisplay(config.total_steps)), stack)
        loop = builder_of(config.algorithm).build_loop(Task(config), run)
        loop.journal.log.open(resume_step=None)
        loop.save = lambda: run_dir  # the peers write no checkpoints either
        loop.journal.checkpoints.mark_best = lambda _: None
        if settings.get("warmup"):
            train(loop, settings["warmup"], Clock())

        def answer(request: int | str) -> dict[str, float]:
            if request == "laps":
                return loop.journal.laps.seconds
            if request == "processes":
                return cpu_of_processes()
            return train(loop, int(request), Clock(), target)

        serve(answer)


if __name__ == "__main__":
    main()
