"""GRPOLoss, forward and backward, against the same passes in plain PyTorch."""

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from common.harness import HEADER, Bar, Comparison, arguments, compare, finish, repeated
from floors.grpo import grpo_loss
from tesserl_actor_critic import ActorCritic
from tesserl_grpo import GRPOLoss
from tesserl_nn_components import MLP

FEATURES, ACTIONS, BATCH, CLIP_EPSILON = 4, 2, 256, 0.2
CASES = {"no entropy": (0.0, 0.0), "entropy": (0.01, 0.0), "entropy and k3": (0.01, 0.04)}  # coefficients
WAYS = {"direct": Bar("cost", 1.15), "direct, with metrics": Bar("cost"), "TensorDict, with metrics": Bar("cost")}


class Body(MLP):
    in_keys = ("observation",)


def batch() -> dict[str, Tensor]:
    log_probs = torch.full((BATCH,), 1 / ACTIONS).log()
    return {
        "observation": torch.randn(BATCH, FEATURES),
        "action": torch.randint(ACTIONS, (BATCH,)),
        "old_log_probs": log_probs + 0.2 * torch.randn(BATCH),
        "advantages": torch.randn(BATCH),
        "step_weights": torch.rand(BATCH) / BATCH,
        "reference_log_probs": log_probs + 0.2 * torch.randn(BATCH),
    }


class Ours:
    """The loss of this project on a flat minibatch; through the ``ActorCritic`` itself, or its torchrl face."""

    def __init__(
        self, network: ActorCritic, data: dict[str, Tensor], entropy_coef: float, kl_coef: float, way: str
    ) -> None:
        self.loss = GRPOLoss(
            network if way.startswith("direct") else network.actor,
            clip_epsilon=CLIP_EPSILON,
            entropy_coef=entropy_coef,
            kl_coef=kl_coef,
            with_metrics=way.endswith("metrics"),
        )
        self.added = [key for key in ("loss_entropy", "loss_kl") if key in self.loss.out_keys]
        self.parameters = [*network.body.parameters(), *network.policy.parameters()]
        names = {
            "action_log_prob": "old_log_probs",
            "step_weight": "step_weights",
            "reference_log_prob": "reference_log_probs",
        }
        entries = {"observation": data["observation"], "action": data["action"]}
        entries |= {key: data[name] for key, name in names.items()}
        self.batch = TensorDict({**entries, "advantage": data["advantages"].unsqueeze(-1)}, [BATCH])

    def __call__(self) -> Tensor:
        losses = self.loss(self.batch)
        loss = losses["loss_objective"]
        for key in self.added:
            loss = loss + losses[key]
        loss.backward()
        return loss


class Floor:
    """The same on plain tensors."""

    def __init__(self, network: ActorCritic, data: dict[str, Tensor], entropy_coef: float, kl_coef: float) -> None:
        policy = [*network.body.parameters(), *network.policy.parameters()]
        self.parameters = [nn.Parameter(parameter.detach().clone()) for parameter in policy]
        self.data, self.coefficients = data, {"entropy_coef": entropy_coef, "kl_coef": kl_coef}

    def __call__(self) -> Tensor:
        loss = grpo_loss(self.parameters, **self.data, clip_epsilon=CLIP_EPSILON, **self.coefficients)
        loss.backward()
        return loss


def step(side: Ours | Floor) -> Tensor:
    for parameter in side.parameters:
        parameter.grad = None
    return side()


def difference(ours: Ours, floor: Floor) -> float:
    """The largest difference of loss and gradients, relative to the largest entry of each."""
    losses = [step(side).detach() for side in (ours, floor)]
    gradients = [[parameter.grad for parameter in side.parameters] for side in (ours, floor)]
    pairs = [losses, *zip(*gradients, strict=True)]
    return max(float((mine - other).abs().max() / other.abs().max()) for mine, other in pairs)


def sides(case: str, way: str = "direct") -> tuple[Ours, Floor]:
    torch.manual_seed(0)
    body = Body(FEATURES, [64, 64], activation=nn.Tanh)
    network, data = ActorCritic(body, action_space=ACTIONS), batch()
    return Ours(network, data, *CASES[case], way), Floor(network, data, *CASES[case])


def main() -> list[Comparison]:
    options = arguments(__doc__, seconds=0.5).parse_args()
    torch.set_num_threads(1)
    print(HEADER)
    comparisons = []
    for case in CASES:
        for way, bar in WAYS.items():
            ours, floor = sides(case, way)
            found = difference(ours, floor)
            if not found <= 1e-6:
                raise SystemExit(f"the floor is no floor: loss or gradients differ by {found:.1e}")
            comparisons.append(
                compare(
                    f"GRPO update, {case}; {way}",
                    repeated(lambda: step(floor), options.seconds),  # noqa: B023 (called in this pass of the loop)
                    repeated(lambda: step(ours), options.seconds),  # noqa: B023
                    bar,
                    rounds=options.rounds,
                )
            )
    return comparisons


if __name__ == "__main__":
    finish("grpo_update", main())
