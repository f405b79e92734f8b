"""One process of several ranks that goes through a list of scenarios: ``python ranked.py DIRECTORY``.

``DIRECTORY/plan.json`` lists the port, the name and the arguments of each scenario; what a scenario returns is a line
of ``DIRECTORY/RANK.jsonl``. One process does them all, because importing torch takes longer than most of them.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from tensordict import TensorDict
from torch import nn

from tesserl_actor_critic import ActorCritic, PPOLoss
from tesserl_grpo import GRPOLoss
from tesserl_nn_components import RunningNormalizer, VectorEncoder
from tesserl_trainer.cli import main
from tesserl_trainer.ranks.group import GRACE, RankError, Ranks
from tesserl_trainer.ranks.joining import joined
from tesserl_trainer.ranks.shares import shared_minibatches, slices
from tesserl_trainer.ranks.states import state_of_all
from tesserl_trainer.training.journal import Journal
from tesserl_trainer.training.learner import Learner
from tesserl_trainer.training.replay_segments import Segments

RANK = int(os.environ.get("RANK", "0"))


def train(arguments: list[str], stop: list[int] | None = None) -> int:
    """Return the exit code of a training; ``stop``: the rank that gets a SIGTERM, and the step from which on."""
    begin_round = Journal.begin_round

    def stopping(journal: Journal) -> int:
        if stop is not None and stop[0] == RANK and journal.step >= stop[1] and not journal.stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return begin_round(journal)

    Journal.begin_round = stopping
    try:
        return main(["train", *arguments])
    finally:
        Journal.begin_round = begin_round


def network(features: int = 3) -> ActorCritic:
    torch.manual_seed(7)
    body = VectorEncoder(features, hidden_sizes=[5])
    return ActorCritic(body, action_space=4).double()


def rows(number: int, seed: int) -> TensorDict:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(number, *shape, generator=generator, dtype=torch.float64)

    action = torch.randint(4, (number,), generator=generator)
    entries = {
        "action": action,
        "action_log_prob": -draw().abs(),
        "advantage": 3 + 5 * draw(1),
        "value_target": draw(1),
    }
    return TensorDict({"observation": draw(3), "action": action, **entries, "state_value": draw(1)}, [number])


def gradients(numbers: list[int], minibatches: int) -> list[float]:
    """Return how far the gradients of each minibatch are from those of the whole of it, relative to the largest."""
    found = []
    with joined("cpu") as ranks:
        shared, whole = network(), network()
        loss = PPOLoss(shared.actor, shared.critic, normalize_advantage=False)
        learner = Learner(loss, loss, list(shared.parameters()), torch.optim.SGD(shared.parameters(), lr=0.0), None)
        learner.share(ranks)
        reference = PPOLoss(whole.actor, whole.critic, normalize_advantage=True)
        raw = rows(numbers[RANK], seed=RANK)
        raw["raw"] = raw["advantage"].clone()
        for minibatch, weight in shared_minibatches(ranks, raw, minibatches, normalize=True):
            metrics = learner.update(minibatch, 1, lambda _: None, weight)
            parts = ranks.gather(minibatch if weight else minibatch[:0])
            together = torch.cat(parts)
            together["advantage"] = together["raw"]
            whole.zero_grad()
            results = reference(together)
            sum(value for name, value in results.items() if name.startswith("loss")).backward()
            for ours, expected in zip(shared.parameters(), whole.parameters(), strict=True):
                scale = max(float(expected.grad.abs().max()), 1.0)
                found.append(float((ours.grad - expected.grad).abs().max()) / scale)
            found.append(abs(float(metrics["kl_approx"] - results["kl_approx"])))
    return found


def sliced(number: int, minibatches: int) -> list[float]:
    """Return the same as `gradients`, for a batch that all ranks have, and a loss that is a weighted sum."""
    found = []
    with joined("cpu") as ranks:
        shared, whole = network(), network()
        loss, reference = GRPOLoss(shared), GRPOLoss(whole)
        parameters = [each for each in shared.parameters() if each.requires_grad]
        learner = Learner(loss, loss, parameters, torch.optim.SGD(parameters, lr=0.0), None)
        learner.share(ranks)
        data = rows(number, seed=3)
        data["mask"] = torch.ones(number, dtype=torch.bool)
        data["weight"] = torch.rand(number, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        data["step_weight"] = data["weight"].clone()
        ranks.seed(5)
        for minibatch, weight in slices(ranks, data, minibatches, summed="step_weight"):
            learner.update(minibatch, 1, lambda _: None, weight)
            together = torch.cat(ranks.gather(minibatch if weight else minibatch[:0]))
            together["step_weight"] = together["weight"]
            whole.zero_grad()
            results = reference(together)
            sum(value for name, value in results.items() if name.startswith("loss")).backward()
            for ours, expected in zip(shared.parameters(), whole.parameters(), strict=True):
                if expected.grad is not None:
                    found.append(float((ours.grad - expected.grad).abs().max() / expected.grad.abs().max()))
    return found


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


SCENARIOS = {each.__name__: each for each in (train, gradients, sliced, statistics, agreement, failures)}

if __name__ == "__main__":
    directory = Path(sys.argv[1])
    Segments.__init__.__kwdefaults__ = {"size": 32}
    with (directory / f"{RANK}.jsonl").open("w") as results:
        for port, name, arguments in json.loads((directory / "plan.json").read_text()):
            os.environ["MASTER_PORT"] = str(port)
            results.write(json.dumps(SCENARIOS[name](**arguments)) + "\n")
            results.flush()
