"""One epoch of PreferenceLoss over 10,000 pairs of 50 steps, from minibatches to updates, against plain PyTorch.

python benchmarks/preference_update.py                  time, then memory
python benchmarks/preference_update.py --part memory    what 100,000 stored pairs need beyond 1,000, on Linux
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torch.distributions import Categorical
from torchrl.modules import ProbabilisticActor

from common.harness import HEADER, Bar, Comparison, arguments, compare, finish, repeat
from floors.preferences import epoch, preference_loss
from tesserl_actor_critic import ActorCritic
from tesserl_nn_components import MLP
from tesserl_preference_data import PreferencePairs, save_pairs
from tesserl_preference_opt import PreferenceLoss

FEATURES, ACTIONS, PAIRS, STEPS, BATCH, BETA, LEARNING_RATE = 4, 2, 10_000, 50, 64, 0.1, 3e-4
FEW, MANY, MEGABYTES = 1_000, 100_000, 50.0


class Body(MLP):
    in_keys = ("observation",)


def build_network() -> ActorCritic:
    torch.manual_seed(0)
    return ActorCritic(Body(FEATURES, [64, 64], activation=nn.Tanh), action_space=ACTIONS)


def torchrl_actor(network: ActorCritic) -> ProbabilisticActor:
    """The same layers under torchrl's actor and PyTorch's distribution."""
    module = TensorDictModule(nn.Sequential(network.body, network.policy), ["observation"], ["logits"])
    return ProbabilisticActor(module, ["logits"], distribution_class=Categorical, return_log_prob=True)


def build_data(num_pairs: int) -> dict[str, Tensor]:
    """Return random data of chosen and of rejected segments, ``[2, P, T, ...]``."""
    shape = (2, num_pairs, STEPS)
    return {
        "observation": torch.randn(*shape, FEATURES),
        "action": torch.randint(ACTIONS, shape),
        "reference_log_prob": -torch.rand(shape),
    }


def build_pairs(data: dict[str, Tensor]) -> PreferencePairs:
    shape = data["action"].shape[1:]
    chosen, rejected = (TensorDict({name: each[side] for name, each in data.items()}, shape) for side in (0, 1))
    return PreferencePairs.from_segments(chosen, rejected)


def policy_parameters(network: ActorCritic) -> list[nn.Parameter]:
    return [*network.body.parameters(), *network.policy.parameters()]


class Ours:
    """The loss of this project, on pairs of this project."""

    def __init__(self, network: ActorCritic, actor: nn.Module, data: dict[str, Tensor]) -> None:
        self.loss = PreferenceLoss(actor, beta=BETA)
        self.pairs = build_pairs(data)
        self.parameters = policy_parameters(network)
        self.optimizer = torch.optim.Adam(self.parameters, lr=LEARNING_RATE)

    def backward(self, index: Tensor) -> Tensor:
        loss = self.loss(self.pairs.batch(index))["loss"]
        loss.backward()
        return loss.detach()

    def __call__(self) -> Tensor:
        losses = []
        for batch in self.pairs.minibatches(BATCH):
            loss = self.loss(batch)["loss"]
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses).mean()


class Floor:
    """The same on plain tensors."""

    def __init__(self, network: ActorCritic, data: dict[str, Tensor]) -> None:
        self.parameters = [nn.Parameter(each.detach().clone()) for each in policy_parameters(network)]
        self.optimizer = torch.optim.Adam(self.parameters, lr=LEARNING_RATE)
        self.data = data

    def backward(self, index: Tensor) -> Tensor:
        data = {name: each[:, index] for name, each in self.data.items()}
        loss = preference_loss(self.parameters, **data, beta=BETA)
        loss.backward()
        return loss.detach()

    def __call__(self) -> Tensor:
        order = torch.randperm(self.data["action"].shape[1])
        return epoch(self.parameters, self.optimizer, **self.data, order=order, batch_size=BATCH, beta=BETA)


def differences(ours: Ours, floor: Floor, num_pairs: int) -> list[float]:
    """Return relative differences: loss and gradients of a batch, then the mean loss of an epoch."""
    index = torch.randperm(num_pairs)[:BATCH]
    losses, epochs = [side.backward(index) for side in (ours, floor)], []
    gradients = [[parameter.grad for parameter in side.parameters] for side in (ours, floor)]
    compared = [losses, *zip(*gradients, strict=True)]
    for side in (ours, floor):
        torch.manual_seed(1)  # the same order of pairs
        epochs.append(side())
    return [float((mine - other).abs().max() / other.abs().max()) for mine, other in [*compared, epochs]]


def build_sides(kind: str, num_pairs: int) -> tuple[Ours, Floor]:
    network = build_network()
    data = build_data(num_pairs)
    floor = Floor(network, data)  # copies the network before it is trained
    return Ours(network, torchrl_actor(network) if kind == "torchrl" else network, data), floor


def measure_speed(rounds: int) -> list[Comparison]:
    print(HEADER)
    comparisons = []
    for kind, bar in (("ours", Bar("cost", 1.08)), ("torchrl", Bar("cost"))):
        worst = max(differences(*build_sides(kind, 4 * BATCH), 4 * BATCH))
        if not worst <= 1e-6:
            raise SystemExit(f"the floor is no floor: losses or gradients differ by {worst:.1e}")
        ours, floor = build_sides(kind, PAIRS)
        repeat(ours, 1), repeat(floor, 1)
        name = f"epoch of {PAIRS} pairs of {STEPS} steps, actor: {kind}"
        comparisons.append(compare(name, lambda: repeat(floor, 1), lambda: repeat(ours, 1), bar, rounds=rounds))  # noqa: B023
    return comparisons


def measure_memory() -> dict[str, float]:
    """Return the anonymous memory in MB of processes that read all stored pairs once, without and with a reference."""
    worker, measured = Path(__file__).parent / "workers" / "pairs_memory.py", {}
    with tempfile.TemporaryDirectory() as directory:
        for count in (FEW, MANY):
            data = build_data(count)
            del data["reference_log_prob"]
            store = save_pairs(build_pairs(data), Path(directory) / str(count))
            measured[f"{count} pairs on disk"] = sum(each.stat().st_size for each in store.iterdir()) / 2**20
            for name, more in (("", []), (", and a reference", ["reference"])):
                out = subprocess.check_output([sys.executable, worker, store, *more], text=True)
                measured[f"{count} pairs{name}"] = json.loads(out)["megabytes"]
    for name, megabytes in measured.items():
        print(f"{name:<44} {megabytes:7.1f} MB", flush=True)
    grown = measured[f"{MANY} pairs"] - measured[f"{FEW} pairs"]
    print(f"{'grown by':<44} {grown:7.1f} MB  <= {MEGABYTES:g} {'' if grown <= MEGABYTES else 'MISSED'}")
    return measured | {"grown": grown}


def main() -> None:
    parser = arguments(__doc__, seconds=0)
    parser.add_argument("--part", choices=["speed", "memory"], help="one of the two; without it, both")
    options = parser.parse_args()
    torch.set_num_threads(1)
    comparisons = measure_speed(options.rounds) if options.part != "memory" else []
    memory = measure_memory() if options.part != "speed" else {}
    finish("preference_update", comparisons, megabytes=memory)
    if memory.get("grown", 0) > MEGABYTES:
        sys.exit("missed: memory")


if __name__ == "__main__":
    main()
