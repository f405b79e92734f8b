"""sb3-contrib's QR-DQN. A request is the most environment steps to train; ``settings/iqn_peers.yaml`` is what it reads.

It answers one request only, with its evaluations and, if asked for, the returns of the best and of the last weights;
with a ``target``, as soon as an evaluation reaches it.
"""

import json
import sys

import torch
from sb3 import NETWORKS, falling, learn, vectorised
from sb3_contrib import QRDQN
from stdio import serve


def build(settings: dict) -> QRDQN:
    policy, arguments = NETWORKS[settings["network"]]
    options = dict(settings["qrdqn"])
    environments = vectorised(settings["task"], options.pop("num_envs"), settings["seed"])
    options |= falling(options, settings)
    arguments = {**arguments, **options.pop("policy_kwargs")}
    return QRDQN(policy, environments, policy_kwargs=arguments, seed=settings["seed"], device="cpu", **options)


def main() -> None:
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    model = build(settings)
    serve(lambda steps: learn(model, settings, steps))


if __name__ == "__main__":
    main()
