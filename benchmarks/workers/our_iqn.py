"""This project's off-policy loop on a configuration. A request is a number of environment steps to train.

With the setting ``target`` it answers one request only: the most steps to train until a greedy evaluation reaches it.
"""

import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import torch
from stdio import Clock, serve

from tesserl_configs import load_config
from tesserl_trainer.commands.assembly import assemble
from tesserl_trainer.loops.off_policy import OffPolicyLoop
from tesserl_trainer.run.evaluate import Evaluation
from tesserl_trainer.run.progress import ProgressDisplay
from tesserl_trainer.run.state import seed_generators


def train(loop: OffPolicyLoop, steps: int, clock: Clock, target: float = float("inf")) -> dict[str, float]:
    """Trains ``steps`` more steps, or until an evaluation reaches ``target``; evaluations stop the clock."""
    last, start = loop.step + steps, loop.step
    evaluate, advance = loop.evaluate, loop.progress.advance
    best = float("-inf")

    def evaluate_off_the_clock() -> Evaluation:
        nonlocal best
        with clock.stopped():
            evaluation = evaluate()
        best = max(best, evaluation.return_mean)
        loop.stop = loop.stop or best >= target
        return evaluation

    def advance_until_last(step: int) -> None:
        advance(step)
        loop.stop = loop.stop or step >= last

    loop.stop, loop.evaluate, loop.progress.advance = False, evaluate_off_the_clock, advance_until_last
    loop.run()
    loop.evaluate, loop.progress.advance = evaluate, advance
    answer = {"count": loop.step - start, **clock.read()}
    return answer | {"best": best, "reached": best >= target} if target < float("inf") else answer


def main() -> None:
    settings = json.loads(sys.argv[1])
    config = load_config(settings["config"], settings["overrides"])
    torch.set_num_threads(1)
    seed_generators(config.seed)
    target = settings.get("target", float("inf"))
    with ExitStack() as stack:
        run_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        loop = assemble(config, run_dir, stack.enter_context(ProgressDisplay(config.total_steps)), stack)
        loop.log.open(resume_step=None)
        loop.save = lambda: run_dir  # the peers write no checkpoints either
        loop.checkpoints.mark_best = lambda _: None
        if target == float("inf"):
            train(loop, config.replay.warmup_steps, Clock())
        serve(lambda steps: train(loop, steps, Clock(), target))


if __name__ == "__main__":
    main()
