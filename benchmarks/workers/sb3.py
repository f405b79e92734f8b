"""Code shared by the workers of Stable-Baselines3's algorithms: tasks, networks and greedy evaluations."""

import copy
from collections.abc import Callable

import gymnasium as gym
import numpy as np
from episodes import FINAL_SEEDS, play
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack
from stdio import Clock
from tasks import make
from torch import Tensor, nn


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
    "mlp": ("MlpPolicy", {}),  # of PPO: tanh, 64 and 64, actor and critic apart
    "nature": ("CnnPolicy", {}),  # shared; linear heads
    "minatar": (
        "CnnPolicy",
        {"features_extractor_class": MinAtarNetwork, "net_arch": [], "normalize_images": False},
    ),
}


def vectorised(task: str, num_envs: int, seed: int) -> VecEnv:
    if "NoFrameskip" in task:
        import ale_py

        gym.register_envs(ale_py)
        return VecFrameStack(make_atari_env(task, num_envs, seed), 4)
    return DummyVecEnv([lambda: make(task)] * num_envs)


def falling(options: dict, settings: dict) -> dict[str, Callable[[float], float]]:
    """Return the options named in ``linear`` as schedules that fall from their value to 0 over the run."""
    return {
        name: lambda remaining, value=options[name]: max(remaining, 0.0) * value for name in settings.get("linear", ())
    }


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
            if score >= self.best:  # among equals the later, as in Tesserl
                self.best, self.best_weights = score, copy.deepcopy(self.model.policy.state_dict())

    def _on_training_end(self) -> None:
        self._on_rollout_start()

    def _on_step(self) -> bool:
        return self.best < self.target

    def final(self) -> dict[str, list[float]]:
        """Return the returns of the last and of the best weights, on separate seeds."""
        episodes = self.settings.get("final_episodes", 0)
        if not episodes:
            return {}
        last = self.returns(self.settings["seed"] + FINAL_SEEDS, episodes)
        self.model.policy.load_state_dict(self.best_weights)
        return {"last_returns": last, "returns": self.returns(self.settings["seed"] + FINAL_SEEDS, episodes)}


def learn(model: BaseAlgorithm, settings: dict, steps: int) -> dict[str, object]:
    """Train with evaluations, not counted in the time, until ``settings["target"]`` if it is set."""
    clock, target = Clock(), settings.get("target", float("inf"))
    evaluations = Evaluations(clock, settings["task"], settings["evaluation"], target)
    model.learn(steps, callback=evaluations)
    answer = {"count": model.num_timesteps, **clock.read(), "best": evaluations.best}
    return answer | {"reached": evaluations.best >= target, "curve": evaluations.curve} | evaluations.final()
