"""IQNLoss, forward and backward, against the same passes in plain PyTorch."""

import copy

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from common.harness import HEADER, Bar, Comparison, arguments, compare, finish, repeated
from floors.iqn import cosine_frequencies, iqn_loss
from tesserl_iqn import IQNLoss, QuantileNetwork
from tesserl_nn_components import MLP

FEATURES, ACTIONS, COSINES, BATCH, TAUS, POLICY_TAUS, DISCOUNT = 4, 2, 64, 128, 8, 32, 0.99


class Body(MLP):
    in_keys = ("observation",)


def batch() -> dict[str, Tensor]:
    return {
        "observation": torch.randn(BATCH, FEATURES),
        "action": torch.randint(ACTIONS, (BATCH,)),
        "reward": torch.randn(BATCH),
        "next_observation": torch.randn(BATCH, FEATURES),
        "terminated": torch.rand(BATCH) < 0.1,
    }


class Ours:
    """The loss of this project on a batch."""

    def __init__(self, network: QuantileNetwork, target: QuantileNetwork, data: dict[str, Tensor]) -> None:
        self.loss = IQNLoss(
            network, discount=DISCOUNT, num_taus=TAUS, num_target_taus=TAUS, num_policy_taus=POLICY_TAUS
        )
        self.loss.target_value_network.load_state_dict(target.state_dict())
        self.loss._has_update_associated["value_network"] = True  # what torchrl's updaters tell a loss
        self.parameters = list(network.parameters())
        following = {
            "observation": data["next_observation"],
            "reward": data["reward"].unsqueeze(-1),
            "terminated": data["terminated"].unsqueeze(-1),
        }
        root = {"observation": data["observation"], "action": data["action"], "next": following}
        self.batch = TensorDict(root, [BATCH])

    def __call__(self) -> Tensor:
        loss = self.loss(self.batch)["loss"]
        loss.backward()
        return loss


class Floor:
    """The same on plain tensors."""

    def __init__(self, network: QuantileNetwork, target: QuantileNetwork, data: dict[str, Tensor]) -> None:
        self.parameters = [nn.Parameter(parameter.detach().clone()) for parameter in network.parameters()]
        self.target = [parameter.detach().clone() for parameter in target.parameters()]
        self.data = data
        self.frequencies = cosine_frequencies(COSINES)

    def __call__(self) -> Tensor:
        loss = iqn_loss(
            self.parameters,
            self.target,
            self.frequencies,
            **self.data,
            discount=DISCOUNT,
            num_taus=TAUS,
            num_policy_taus=POLICY_TAUS,
        )
        loss.backward()
        return loss


def step(side: Ours | Floor) -> Tensor:
    for parameter in side.parameters:
        parameter.grad = None
    return side()


def check_same(ours: Ours, floor: Floor) -> None:
    """Loss and gradients agree to 1e-6, relative to the largest of each."""
    for seed in range(5):
        losses = []
        for side in (ours, floor):
            torch.manual_seed(seed)
            losses.append(step(side).detach())
        gradients = [[parameter.grad for parameter in side.parameters] for side in (ours, floor)]
        for mine, other in [losses, *zip(*gradients, strict=True)]:
            difference = float((mine - other).abs().max() / other.abs().max())
            if not difference <= 1e-6:
                raise SystemExit(f"the floor is no floor: loss or gradients differ by {difference:.1e}")


def sides(hidden_sizes: list[int]) -> tuple[Ours, Floor]:
    torch.manual_seed(0)
    network = QuantileNetwork(Body(FEATURES, [64, 64]), ACTIONS, num_cosines=COSINES, hidden_sizes=hidden_sizes)
    target, data = copy.deepcopy(network), batch()
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.mul_(0.9)
    return Ours(network, target, data), Floor(network, target, data)


def main() -> list[Comparison]:
    options = arguments(__doc__, seconds=0.5).parse_args()
    torch.set_num_threads(1)
    print(HEADER)
    comparisons = []
    for hidden_sizes in ([], [64], [512]):  # the last is the default
        ours, floor = sides(hidden_sizes)
        check_same(ours, floor)
        comparisons.append(
            compare(
                f"IQN update, batch {BATCH}, head {hidden_sizes}",
                repeated(lambda: step(floor), options.seconds),  # noqa: B023 (called in this pass of the loop)
                repeated(lambda: step(ours), options.seconds),  # noqa: B023
                Bar("cost", 1.15),
                rounds=options.rounds,
            )
        )
    return comparisons


if __name__ == "__main__":
    finish("iqn_update", main())
