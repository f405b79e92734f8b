"""One process of several ranks that goes through a list of scenarios: ``python ranked.py DIRECTORY``.

``DIRECTORY/plan.json`` lists the port, the name and the arguments of each scenario; what a scenario returns is a line
of ``DIRECTORY/RANK.jsonl``. One process does them all, because importing torch takes longer than most of them.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from tensordict import TensorDict

from tesserl_actor_critic import ActorCritic, PPOLoss
from tesserl_grpo import GRPOLoss
from tesserl_iqn import IQNLoss, QuantileNetwork, targets
from tesserl_nn_components import VectorEncoder
from tesserl_preference_opt import PreferenceLoss
from tesserl_ranks.joining import joined
from tesserl_ranks.shares import shared_minibatches, slices
from tesserl_trainer.cli import main
from tesserl_training.journal import Journal
from tesserl_training.learner import Learner
from tesserl_training.replay_segments import Segments

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


def quantile_network() -> QuantileNetwork:
    torch.manual_seed(7)
    return QuantileNetwork(VectorEncoder(3, hidden_sizes=[5]), 4, num_cosines=6, hidden_sizes=(7,)).double()


def transitions(number: int, seed: int) -> TensorDict:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(number, *shape, generator=generator, dtype=torch.float64)

    following = {"observation": draw(3), "reward": draw(1), "terminated": draw(1) > 1}
    action = torch.randint(4, (number,), generator=generator)
    weights = {"priority_weight": draw().abs(), "steps_to_next_obs": torch.ones(number, 1, dtype=torch.int64)}
    return TensorDict({"observation": draw(3), "action": action, **weights, "next": following}, [number])


def replayed(number: int, munchausen: bool) -> list[float]:
    """Return the same as `gradients` for batches that each rank draws from a replay buffer of its own.

    The fractions are the same in all passes: a rank draws those of its part, and cannot draw those of the whole.
    """
    found, draw = [], targets.sample_taus
    targets.sample_taus = lambda *sizes, **options: draw(*sizes, **options | {"kind": "midpoints"})
    with joined("cpu") as ranks:
        shared, whole = quantile_network(), quantile_network()
        alpha = 0.9 if munchausen else None
        loss, reference = IQNLoss(shared, munchausen_alpha=alpha), IQNLoss(whole, munchausen_alpha=alpha)
        learner = Learner(loss, loss, list(shared.parameters()), torch.optim.SGD(shared.parameters(), lr=0.0), None)
        learner.share(ranks)
        for update in range(2):
            batch = transitions(number, seed=10 * update + RANK)
            together = torch.cat(ranks.gather(batch))
            learner.update(batch, 1, lambda _: None)
            whole.zero_grad()
            reference(together)["loss"].backward()
            for ours, expected in zip(shared.parameters(), whole.parameters(), strict=True):
                found.append(float((ours.grad - expected.grad).abs().max() / expected.grad.abs().max()))
    targets.sample_taus = draw
    return found


def compared(number: int, size: int) -> list[float]:
    """Return the same as `gradients` for batches of pairs that are drawn once, and of which each rank has a part."""
    found = []
    with joined("cpu") as ranks:
        shared, whole = network(), network()
        loss, reference = (PreferenceLoss(each, reference_network="copy", beta=0.7) for each in (shared, whole))
        with torch.no_grad():  # the policy is not its reference any more
            for each in (shared, whole):
                for parameter in each.policy.parameters():
                    parameter.mul_(-3.0).add_(0.5)
        parameters = list(shared.policy.parameters()) + list(shared.body.parameters())
        learner = Learner(loss, loss, parameters, torch.optim.SGD(parameters, lr=0.0), None)
        learner.share(ranks)
        lengths = torch.randint(1, 5, (2 * number, 1), generator=torch.Generator().manual_seed(6))
        steps = rows(8 * number, seed=5).reshape(2 * number, 4)
        steps["mask"] = torch.arange(4) < lengths
        label = torch.rand(number, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        pairs = TensorDict({"chosen": steps[:number], "rejected": steps[number:], "label": label}, [number])
        ranks.seed(5)
        with ranks.agreed():
            order = torch.randperm(number)
        for index in torch.split(order, size):
            own, weight = ranks.share(index)
            metrics = learner.update(pairs[own], 1, lambda _: None, float(weight))
            whole.zero_grad()
            results = reference(pairs[index])
            results["loss"].backward()
            expected = list(whole.policy.parameters()) + list(whole.body.parameters())
            for ours, right in zip(parameters, expected, strict=True):
                found.append(float((ours.grad - right.grad).abs().max() / right.grad.abs().max()))
            found.append(abs(float(metrics["loss"] - results["loss"].detach())))
    return found


SCENARIOS = {each.__name__: each for each in (train, gradients, sliced, replayed, compared)}

if __name__ == "__main__":
    directory = Path(sys.argv[1])
    Segments.__init__.__kwdefaults__ = {"size": 32}
    with (directory / f"{RANK}.jsonl").open("w") as results:
        for port, name, arguments in json.loads((directory / "plan.json").read_text()):
            os.environ["MASTER_PORT"] = str(port)
            results.write(json.dumps(SCENARIOS[name](**arguments)) + "\n")
            results.flush()
