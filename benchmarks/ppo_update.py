"""PPOLoss, forward and backward, against the same passes in plain PyTorch and against torchrl's ClipPPOLoss."""

import copy

import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torchrl.objectives import ClipPPOLoss

from common.harness import HEADER, Bar, Comparison, arguments, compare, finish, repeated
from floors.ppo import ppo_loss, ppo_metrics
from tesserl_actor_critic import ActorCritic, PPOLoss
from tesserl_nn_components import MLP

FEATURES, ACTIONS, BATCH = 4, 2, 256
CLIP_EPSILON, VALUE_COEF, ENTROPY_COEF = 0.2, 0.5, 0.01


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
        "advantage": torch.randn(BATCH),
        "value_target": torch.randn(BATCH),
    }


def as_tensordict(data: dict[str, Tensor]) -> TensorDict:
    entries = {
        "observation": data["observation"],
        "action": data["action"],
        "action_log_prob": data["old_log_probs"],
        "advantage": data["advantage"].unsqueeze(-1),
        "value_target": data["value_target"].unsqueeze(-1),
    }
    return TensorDict(entries, [BATCH])


class Ours:
    """The loss of this project on a batch."""

    def __init__(self, network: ActorCritic, data: dict[str, Tensor], *, metrics: bool) -> None:
        self.loss = PPOLoss(
            network,
            clip_epsilon=CLIP_EPSILON,
            value_coef=VALUE_COEF,
            entropy_coef=ENTROPY_COEF,
            log_metrics=metrics,
        )
        self.parameters = parameters_of(network)
        self.batch = as_tensordict(data)

    def __call__(self) -> tuple[Tensor, TensorDict]:
        results = self.loss(self.batch)
        loss = results["loss_objective"] + results["loss_critic"] + results["loss_entropy"]
        loss.backward()
        return loss, results


class Torchrls(Ours):
    """torchrl's loss with the same constants."""

    def __init__(self, network: ActorCritic, data: dict[str, Tensor]) -> None:
        self.loss = ClipPPOLoss(
            network.actor,
            network.critic,
            clip_epsilon=CLIP_EPSILON,
            critic_coeff=0.5 * VALUE_COEF,
            entropy_coeff=ENTROPY_COEF,
            loss_critic_type="l2",
            normalize_advantage=True,
        )
        self.parameters = parameters_of(network)
        self.batch = as_tensordict(data)


class Floor:
    """The same on plain tensors."""

    def __init__(self, network: ActorCritic, data: dict[str, Tensor], *, metrics: bool) -> None:
        self.parameters = [nn.Parameter(parameter.detach().clone()) for parameter in parameters_of(network)]
        self.data = data
        self.metrics = metrics

    def __call__(self) -> tuple[Tensor, dict[str, Tensor]]:
        loss, results = self.evaluate()
        loss.backward()
        return loss, results

    def evaluate(self) -> tuple[Tensor, dict[str, Tensor]]:
        loss, entropy, log_ratio, value = ppo_loss(
            self.parameters[:6],
            self.parameters[6:],
            **self.data,
            clip_epsilon=CLIP_EPSILON,
            value_coef=VALUE_COEF,
            entropy_coef=ENTROPY_COEF,
        )
        results = {"entropy": entropy}
        if self.metrics:
            target = self.data["value_target"]
            results.update(ppo_metrics(log_ratio, value, target, clip_epsilon=CLIP_EPSILON))
        return loss, results


def parameters_of(network: ActorCritic) -> list[nn.Parameter]:
    """Body and head of the actor, then those of the critic."""
    parts = (network.body, network.policy, network.critic_body, network.value)
    return [parameter for part in parts for parameter in part.parameters()]


def step(side: Ours | Floor) -> tuple[Tensor, TensorDict | dict[str, Tensor]]:
    for parameter in side.parameters:
        parameter.grad = None
    return side()


def difference(ours: Ours, floor: Floor) -> float:
    """Largest difference of the loss, of the floor's other results and of all gradients, relative to each."""
    (my_loss, mine), (their_loss, theirs) = step(ours), step(floor)
    pairs = [(my_loss.detach(), their_loss.detach()), *((mine[name], value) for name, value in theirs.items())]
    pairs += [(one.grad, other.grad) for one, other in zip(ours.parameters, floor.parameters, strict=True)]
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in pairs)


def build_sides(*, metrics: bool) -> tuple[Ours, Floor]:
    torch.manual_seed(0)
    network, data = build_network(), build_batch()
    return Ours(network, data, metrics=metrics), Floor(network, data, metrics=metrics)


def main() -> list[Comparison]:
    options = arguments(__doc__, seconds=0.5).parse_args()
    torch.set_num_threads(1)
    print(HEADER)
    name, sides = f"PPO update, batch {BATCH}", {}
    for metrics in (True, False):
        ours, floor = build_sides(metrics=metrics)
        if (off := difference(ours, floor)) > 1e-6:
            raise SystemExit(f"the floor is no floor: loss, gradients or metrics differ by {off:.1e}")
        sides[metrics] = [repeated(lambda side=side: step(side), options.seconds) for side in (floor, ours)]
    torchrls = Torchrls(copy.deepcopy(ours.loss._actor_critic), floor.data)
    theirs = repeated(lambda: step(torchrls), options.seconds)
    bar, rounds = Bar("cost", 1.12), options.rounds
    return [
        compare(f"{name}, with metrics, both", *sides[True], bar, rounds=rounds),
        compare(f"{name}, without metrics, both", *sides[False], bar, rounds=rounds),
        compare(
            f"{name}, ours with metrics, floor without", sides[False][0], sides[True][1], Bar("cost"), rounds=rounds
        ),
        compare(f"{name}, torchrl's ClipPPOLoss", theirs, sides[True][1], Bar("speed"), rounds=rounds),
    ]


if __name__ == "__main__":
    finish("ppo_update", main())
