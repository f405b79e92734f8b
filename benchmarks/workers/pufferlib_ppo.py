"""The PPO of pufferlib-core, on environments of Gymnasium. A request is a number of environment steps to train."""

import json
import sys

import torch
from pufferlib import vector
from pufferlib.emulation import GymnasiumPufferEnv
from pufferlib.pufferl import PuffeRL
from pufferlib.pytorch import layer_init
from stdio import Clock, serve
from tasks import make_unchecked
from torch import Tensor, nn


class Policy(nn.Module):
    """Actor and critic of two tanh layers of 64 each, with the methods that PuffeRL calls."""

    def __init__(self, features: int, actions: int) -> None:
        super().__init__()
        self.actor, self.critic = network(features, actions, 0.01), network(features, 1, 1.0)

    def forward_eval(self, observation: Tensor, _: object = None) -> tuple[Tensor, Tensor]:
        return self.actor(observation), self.critic(observation)

    forward = forward_eval


def network(features: int, outputs: int, gain: float, width: int = 64) -> nn.Sequential:
    return nn.Sequential(
        layer_init(nn.Linear(features, width)),
        nn.Tanh(),
        layer_init(nn.Linear(width, width)),
        nn.Tanh(),
        layer_init(nn.Linear(width, outputs), std=gain),
    )


class QuietPuffeRL(PuffeRL):
    """PuffeRL without the table that it draws four times per second."""

    def print_dashboard(self, *args: object, **kwargs: object) -> None:
        pass


def build(settings: dict) -> PuffeRL:
    environments = vector.make(
        GymnasiumPufferEnv,
        env_kwargs={"env_creator": make_unchecked, "env_args": [settings["task"]]},
        backend=vector.Serial,
        num_envs=settings["num_envs"],
        seed=settings["seed"],
    )
    policy = Policy(environments.single_observation_space.shape[0], int(environments.single_action_space.n))
    ppo = QuietPuffeRL({**settings["train"], "seed": settings["seed"]}, environments, policy)
    ppo.utilization.stop()  # a thread that measures the machine's load for the table
    return ppo


def main() -> None:
    settings = json.loads(sys.argv[1])
    torch.manual_seed(settings["seed"])
    torch.set_num_threads(1)
    ppo = build(settings)

    def train(steps: int) -> dict[str, float]:
        clock, start = Clock(), ppo.global_step
        while ppo.global_step < start + steps:
            ppo.evaluate()
            ppo.train()
        return {"count": ppo.global_step - start, **clock.read()}

    serve(train)


if __name__ == "__main__":
    main()
