"""Stable-Baselines3's PPO. A request is a number of environment steps to train.

With the setting ``evaluation`` it answers one request only, with its evaluations and the returns of the best and of
the last weights; with a ``target``, as soon as an evaluation reaches it. ``settings/sb3_ppo.yaml`` is what it reads.
"""

import json
import sys

import torch
from sb3 import NETWORKS, falling, learn, vectorised
from stable_baselines3 import PPO
from stdio import Clock, serve


def build(settings: dict) -> PPO:
    policy, arguments = NETWORKS[settings["network"]]
    options = dict(settings["ppo"])
    environments = vectorised(settings["task"], options.pop("num_envs"), settings["seed"])
    options |= falling(options, settings)
    return PPO(policy, environments, policy_kwargs=arguments, seed=settings["seed"], device="cpu", verbose=0, **options)


def main() -> None:
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    model = build(settings)

    def train(steps: int) -> dict[str, float]:
        clock, before = Clock(), model.num_timesteps
        model.learn(steps, reset_num_timesteps=False)
        return {"count": model.num_timesteps - before, **clock.read()}

    serve((lambda steps: learn(model, settings, steps)) if "evaluation" in settings else train)


if __name__ == "__main__":
    main()
