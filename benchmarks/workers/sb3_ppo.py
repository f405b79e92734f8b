"""Stable-Baselines3's PPO. A request is a number of environment steps to train.

With the setting ``evaluation`` it answers one request only, with its evaluations and the returns of the best and of
the last weights; with a ``target``, as soon as an evaluation reaches it. ``settings/sb3_ppo.yaml`` is what it reads.
"""

import copy
import json
import sys
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch
from episodes import FINAL_SEEDS, play
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack
from stdio import Clock, serve
from torch import Tensor, nn


class Planes(gym.ObservationWrapper):
    """MinAtar's boolean ``[10, 10, C]`` as 0 and 1, channels first."""

    def __init__(self, environment: gym.Env) -> None:
        super().__init__(environment)
        height, width, channels = environment.observation_space.shape
        self.observation_space = gym.spaces.Box(0.0, 1.0, (channels, height, width), np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return observation.transpose(2, 0, 1).astype(np.float32)


class MinAtarNetwork(BaseFeaturesExtractor):
    """Young & Tian 2019: 16 filters of 3 x 3, then 128 units."""

    def __init__(self, space: gym.spaces.Box) -> None:
        super().__init__(space, 128)
        channels, height, width = space.shape
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 16, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * (height - 2) * (width - 2), 128),
            nn.ReLU(),
        )

    def forward(self, planes: Tensor) -> Tensor:
        return self.layers(planes)


NETWORKS = {  # name -> policy of SB3, and its arguments
    "mlp": ("MlpPolicy", {}),  # tanh, 64 and 64, actor and critic apart
    "nature": ("CnnPolicy", {}),  # shared; linear heads
    "minatar": (
        "CnnPolicy",
        {"features_extractor_class": MinAtarNetwork, "net_arch": [], "normalize_images": False},
    ),
}


def make(task: str) -> gym.Env:
    if not task.startswith("MinAtar/"):
        return gym.make(task)
    from minatar.gym import register_envs

    if task not in gym.registry:
        register_envs()
    return Planes(gym.make(task))


def vectorised(task: str, num_envs: int, seed: int) -> VecEnv:
    if "NoFrameskip" in task:
        import ale_py

        gym.register_envs(ale_py)
        return VecFrameStack(make_atari_env(task, num_envs, seed), 4)
    return DummyVecEnv([lambda: make(task)] * num_envs)


def build(settings: dict) -> PPO:
    policy, arguments = NETWORKS[settings["network"]]
    options = dict(settings["ppo"])
    environments = vectorised(settings["task"], options.pop("num_envs"), settings["seed"])
    for name in settings.get("linear", ()):  # from its value to 0 over the run
        options[name] = lambda remaining, value=options[name]: max(remaining, 0.0) * value
    return PPO(policy, environments, policy_kwargs=arguments, seed=settings["seed"], device="cpu", verbose=0, **options)


class Evaluations(BaseCallback):
    """Evaluates greedily, off the clock, between two rollouts; keeps the best weights; stops at the target."""

    def __init__(self, clock: Clock, task: str, settings: dict, target: float) -> None:
        super().__init__()
        self.clock, self.task, self.settings, self.target = clock, task, settings, target
        self.due = settings["interval"]
        self.curve: list[tuple[int, float]] = []
        self.best, self.best_weights = float("-inf"), None

    def returns(self, seed: int, episodes: int) -> list[float]:
        choose: Callable = lambda batch: self.model.predict(batch, deterministic=True)[0]  # noqa: E731
        return play(choose, lambda: make(self.task), range(seed, seed + episodes), self.settings["max_episode_steps"])

    def _on_rollout_start(self) -> None:
        if self.num_timesteps < self.due:
            return
        self.due += self.settings["interval"]
        with self.clock.stopped():
            score = float(np.mean(self.returns(self.settings["seed"], self.settings["episodes"])))
            self.curve.append((self.num_timesteps, score))
            if score >= self.best:  # of equals the later, as in ours
                self.best, self.best_weights = score, copy.deepcopy(self.model.policy.state_dict())

    def _on_training_end(self) -> None:
        self._on_rollout_start()

    def _on_step(self) -> bool:
        return self.best < self.target

    def final(self) -> dict[str, list[float]]:
        """Returns of the last and of the best weights on seeds of their own."""
        episodes = self.settings.get("final_episodes", 0)
        if not episodes:
            return {}
        last = self.returns(self.settings["seed"] + FINAL_SEEDS, episodes)
        self.model.policy.load_state_dict(self.best_weights)
        return {"last_returns": last, "returns": self.returns(self.settings["seed"] + FINAL_SEEDS, episodes)}


def main() -> None:
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    model = build(settings)

    def train(steps: int) -> dict[str, float]:
        clock, before = Clock(), model.num_timesteps
        model.learn(steps, reset_num_timesteps=False)
        return {"count": model.num_timesteps - before, **clock.read()}

    def learn(steps: int) -> dict[str, object]:
        clock, target = Clock(), settings.get("target", float("inf"))
        evaluations = Evaluations(clock, settings["task"], settings["evaluation"], target)
        model.learn(steps, callback=evaluations)
        answer = {"count": model.num_timesteps, **clock.read(), "best": evaluations.best}
        return answer | {"reached": evaluations.best >= target, "curve": evaluations.curve} | evaluations.final()

    serve(learn if "evaluation" in settings else train)


if __name__ == "__main__":
    main()
