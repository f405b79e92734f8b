"""GRPOLoss, forward and backward, against the same passes in plain PyTorch, and against PPOLoss with its critic."""

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from common.harness import HEADER, Bar, Comparison, arguments, compare, finish, repeated
from floors.grpo import grpo_loss, grpo_metrics
from tesserl_actor_critic import ActorCritic, PPOLoss
from tesserl_grpo import GRPOLoss
from tesserl_nn_components import MLP

FEATURES, ACTIONS, BATCH = 4, 2, 256
CLIP_EPSILON, ENTROPY_COEF, KL_COEF = 0.2, 0.01, 0.04


class Body(MLP):
    in_keys = ("observation",)


def build_network() -> ActorCritic:
    bodies = [Body(FEATURES, [64, 64], activation=nn.Tanh) for _ in range(2)]
    return ActorCritic(bodies[0], critic_body=bodies[1], action_space=ACTIONS)


def build_batch() -> dict[str, Tensor]:
    return {
        "observation": torch.randn(BATCH, FEATURES),
        "action": torch.randint(ACTIONS, (BATCH,)),
        "old_log_probs": -0.7 + 0.2 * torch.randn(BATCH),
        "advantages": torch.randn(BATCH),
        "step_weights": torch.rand(BATCH) / BATCH,
        "reference_log_probs": -0.7 + 0.2 * torch.randn(BATCH),
    }


def as_tensordict(data: dict[str, Tensor]) -> TensorDict:
    entries = {
        "observation": data["observation"],
        "action": data["action"],
        "action_log_prob": data["old_log_probs"],
        "advantage": data["advantages"].unsqueeze(-1),
        "step_weight": data["step_weights"],
        "reference_log_prob": data["reference_log_probs"],
    }
    return TensorDict(entries, [BATCH])


class Ours:
    """The loss of this project on a flat minibatch, with the ``ActorCritic`` itself or its torchrl interface."""

    def __init__(
        self, network: ActorCritic, data: dict[str, Tensor], *, kl_coef: float, metrics: bool, direct: bool = True
    ) -> None:
        self.loss = GRPOLoss(
            network if direct else network.actor,
            clip_epsilon=CLIP_EPSILON,
            entropy_coef=ENTROPY_COEF,
            kl_coef=kl_coef,
            log_metrics=metrics,
        )
        self.names = ["loss_entropy", *["loss_kl"] * bool(kl_coef)]
        self.parameters = parameters_of(network)
        self.batch = as_tensordict(data)

    def __call__(self) -> tuple[Tensor, TensorDict]:
        results = self.loss(self.batch)
        loss = results["loss_objective"]
        for name in self.names:
            loss = loss + results[name]
        loss.backward()
        return loss, results


class Floor:
    """The same on plain tensors."""

    def __init__(self, network: ActorCritic, data: dict[str, Tensor], *, kl_coef: float, metrics: bool) -> None:
        self.parameters = [nn.Parameter(parameter.detach().clone()) for parameter in parameters_of(network)]
        self.data, self.kl_coef, self.metrics = data, kl_coef, metrics

    def __call__(self) -> tuple[Tensor, dict[str, Tensor]]:
        loss, terms = grpo_loss(
            self.parameters,
            **self.data,
            clip_epsilon=CLIP_EPSILON,
            entropy_coef=ENTROPY_COEF,
            kl_coef=self.kl_coef,
        )
        results = {}
        if self.metrics:
            results = grpo_metrics(advantages=self.data["advantages"], **terms, clip_epsilon=CLIP_EPSILON)
        loss.backward()
        return loss, results


class PPO:
    """PPOLoss of this project on as many steps, with a critic of the policy's size."""

    def __init__(self, network: ActorCritic, data: dict[str, Tensor]) -> None:
        self.loss = PPOLoss(network, clip_epsilon=CLIP_EPSILON, entropy_coef=ENTROPY_COEF)
        self.parameters = list(network.parameters())
        self.batch = as_tensordict(data).set("value_target", torch.randn(BATCH, 1))

    def __call__(self) -> tuple[Tensor, TensorDict]:
        results = self.loss(self.batch)
        loss = results["loss_objective"] + results["loss_critic"] + results["loss_entropy"]
        loss.backward()
        return loss, results


def parameters_of(network: ActorCritic) -> list[nn.Parameter]:
    """Body and head of the policy."""
    return [*network.body.parameters(), *network.policy.parameters()]


def step(side: Ours | Floor | PPO) -> tuple[Tensor, TensorDict | dict[str, Tensor]]:
    for parameter in side.parameters:
        parameter.grad = None
    return side()


def difference(ours: Ours, floor: Floor) -> float:
    """Largest difference of the loss, of the floor's other results and of all gradients, relative to each."""
    (my_loss, mine), (their_loss, theirs) = step(ours), step(floor)
    pairs = [(my_loss.detach(), their_loss.detach()), *((mine[name], value) for name, value in theirs.items())]
    pairs += [(one.grad, other.grad) for one, other in zip(ours.parameters, floor.parameters, strict=True)]
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in pairs)


def build_sides(*, kl_coef: float = 0.0, metrics: bool, direct: bool = True) -> tuple[Ours, Floor]:
    torch.manual_seed(0)
    network, data = build_network(), build_batch()
    ours = Ours(network, data, kl_coef=kl_coef, metrics=metrics, direct=direct)
    return ours, Floor(network, data, kl_coef=kl_coef, metrics=metrics)


def main() -> list[Comparison]:
    options = arguments(__doc__, seconds=0.5).parse_args()
    torch.set_num_threads(1)
    print(HEADER)
    name, bar, comparisons = f"GRPO update, batch {BATCH}", Bar("cost", 1.12), []
    cases = [
        ("with metrics, both", bar, {"metrics": True}),
        ("without metrics, both", bar, {"metrics": False}),
        ("k3, with metrics, both", bar, {"metrics": True, "kl_coef": KL_COEF}),
        ("torchrl's actor, with metrics, both", Bar("cost"), {"metrics": True, "direct": False}),
    ]
    for case, limit, choices in cases:
        ours, floor = build_sides(**choices)
        if (off := difference(ours, floor)) > 1e-6:
            raise SystemExit(f"the floor is no floor: loss, gradients or metrics differ by {off:.1e}")
        peer, own = (repeated(lambda side=side: step(side), options.seconds) for side in (floor, ours))
        comparisons.append(compare(f"{name}, {case}", peer, own, limit, rounds=options.rounds))
    ours, floor = build_sides(metrics=True)
    ppo = PPO(ours.loss.actor_network, floor.data)
    peer, own = (repeated(lambda side=side: step(side), options.seconds) for side in (ppo, ours))
    comparisons.append(compare(f"{name}, PPO's", peer, own, Bar("speed", 1.0), rounds=options.rounds))
    return comparisons


if __name__ == "__main__":
    finish("grpo_update", main())
