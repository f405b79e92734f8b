"""The bare PPO loop of ``floors/ppo_loop.py``. A request is a number of environment steps to train, or "laps"."""

import json
import sys
from pathlib import Path

import gymnasium as gym
import torch
from gymnasium.vector import AutoresetMode
from stdio import Clock, serve

sys.path.append(str(Path(__file__).parents[1]))
from floors.ppo_loop import PPOLoop, Settings


def main() -> None:
    settings = json.loads(sys.argv[1])
    torch.manual_seed(settings["seed"])
    torch.set_num_threads(1)
    spec = gym.spec(settings["task"])
    spec.disable_env_checker, spec.order_enforce = True, False
    environments = gym.make_vec(
        spec,
        settings["num_envs"],
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
    )
    compiled = settings.get("compiled", False)
    loop = PPOLoop(environments, Settings(**settings["ppo"]), settings["seed"], compiled=compiled)

    def answer(request: int | str) -> dict[str, float]:
        if request == "laps":
            return loop.seconds
        clock = Clock()
        return {"count": loop(int(request)), **clock.read()}

    serve(answer)


if __name__ == "__main__":
    main()
