"""IQNLoss against the same passes in plain PyTorch; with 200 fixed quantiles against them compiled, Adam included."""

import copy
from collections.abc import Callable
from functools import partial

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from common.harness import HEADER, Bar, Comparison, arguments, compare, finish, repeated
from floors.iqn import cosine_frequencies, fusable_pairwise_loss, iqn_loss, pairwise_loss, qr_loss
from tesserl_iqn import IQNLoss, QuantileNetwork, TargetUpdater
from tesserl_nn_components import MLP

FEATURES, ACTIONS, COSINES, BATCH, TAUS, POLICY_TAUS, DISCOUNT = 4, 2, 64, 128, 8, 32, 0.99
QUANTILES = 200  # of QR-DQN on Atari


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
        TargetUpdater(self.loss)  # torchrl warns of a loss without one
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

    def __init__(
        self,
        loss: Callable[..., Tensor],
        network: QuantileNetwork,
        target: QuantileNetwork,
        data: dict[str, Tensor],
    ) -> None:
        self.loss = loss
        self.parameters = [nn.Parameter(parameter.detach().clone()) for parameter in network.parameters()]
        self.target = [parameter.detach().clone() for parameter in target.parameters()]
        self.data = data

    def __call__(self) -> Tensor:
        loss = self.loss(self.parameters, self.target, **self.data)
        loss.backward()
        return loss


def step(side: Ours | Floor) -> Tensor:
    for parameter in side.parameters:
        parameter.grad = None
    return side()


def training(side: Ours | Floor) -> Callable[[], None]:
    """Return a training step: ``side`` and Adam, with a learning rate too small to change the weights."""
    optimizer = torch.optim.Adam(side.parameters, lr=1e-12)

    def train() -> None:
        step(side)
        optimizer.step()

    return train


def check_same(ours: Ours, floor: Floor) -> None:
    """Check that loss and gradients agree to 1e-6, relative to the largest entry of each."""
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


def networks(**options: object) -> tuple[QuantileNetwork, QuantileNetwork, dict[str, Tensor]]:
    """A network, a target that differs from it, and a batch."""
    torch.manual_seed(0)
    network = QuantileNetwork(Body(FEATURES, [64, 64]), ACTIONS, num_cosines=COSINES, **options)
    target, data = copy.deepcopy(network), batch()
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.mul_(0.9)
    return network, target, data


def iqn_sides(hidden_sizes: list[int]) -> tuple[Ours, Floor]:
    loss = partial(
        iqn_loss,
        frequencies=cosine_frequencies(COSINES),
        discount=DISCOUNT,
        num_taus=TAUS,
        num_policy_taus=POLICY_TAUS,
    )
    made = networks(hidden_sizes=hidden_sizes)
    return Ours(*made), Floor(loss, *made)


def qr_sides(compiled: bool) -> tuple[Ours, Floor]:
    pairwise = fusable_pairwise_loss if compiled else pairwise_loss
    loss = partial(qr_loss, discount=DISCOUNT, num_quantiles=QUANTILES, pairwise=pairwise)
    made = networks(hidden_sizes=(), num_fixed_quantiles=QUANTILES)
    return Ours(*made), Floor(torch.compile(loss) if compiled else loss, *made)


def main() -> list[Comparison]:
    options = arguments(__doc__, seconds=0.5).parse_args()
    torch.set_num_threads(1)
    print(HEADER)
    comparisons = []
    for hidden_sizes, limit in (([], 1.15), ([64], 1.1), ([512], 1.04)):  # the last is the default
        ours, floor = iqn_sides(hidden_sizes)
        check_same(ours, floor)
        comparisons.append(
            compare(
                f"IQN update, batch {BATCH}, head {hidden_sizes}",
                repeated(partial(step, floor), options.seconds),
                repeated(partial(step, ours), options.seconds),
                Bar("cost", limit),
                rounds=options.rounds,
            )
        )
    for compiled in (False, True):
        ours, floor = qr_sides(compiled)
        check_same(ours, floor)
        comparisons.append(
            compare(
                f"QR-DQN step, {QUANTILES} quantiles, peer {'compiled' if compiled else 'eager'}",
                repeated(training(floor), options.seconds),
                repeated(training(ours), options.seconds),
                Bar("cost", 1.3 if compiled else None),
                rounds=options.rounds,
            )
        )
    return comparisons


if __name__ == "__main__":
    finish("iqn_update", main())
