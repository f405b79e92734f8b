"""sb3-contrib's QR-DQN on CartPole with rl-zoo's settings. A request is the most steps to train until the target."""

import json
import sys

import gymnasium as gym
import torch
from sb3_contrib import QRDQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stdio import Clock, serve


class UntilTarget(BaseCallback):
    """Evaluates greedily off the clock and stops the training once the target is reached."""

    def __init__(self, clock: Clock, settings: dict[str, float]) -> None:
        super().__init__()
        self.clock, self.settings, self.best = clock, settings, float("-inf")
        self.environment = gym.make("CartPole-v1")

    def _on_step(self) -> bool:
        if self.num_timesteps % self.settings["interval"] == 0:
            with self.clock.stopped():
                self.environment.reset(seed=10_000)
                score, _ = evaluate_policy(
                    self.model, self.environment, self.settings["episodes"], deterministic=True, warn=False
                )
            self.best = max(self.best, float(score))
        return self.best < self.settings["target"]


def main() -> None:
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    model = QRDQN(  # rl-baselines3-zoo, hyperparams/qrdqn.yml, CartPole-v1
        "MlpPolicy",
        gym.make("CartPole-v1"),
        learning_rate=2.3e-3,
        batch_size=64,
        buffer_size=100_000,
        learning_starts=1_000,
        gamma=0.99,
        target_update_interval=10,
        train_freq=256,
        gradient_steps=128,
        exploration_fraction=0.16,
        exploration_final_eps=0.04,
        policy_kwargs={"net_arch": [256, 256], "n_quantiles": 10},
        seed=settings["seed"],
        device="cpu",
    )

    def train(steps: int) -> dict[str, float]:
        clock = Clock()
        callback = UntilTarget(clock, settings)
        model.learn(steps, callback=callback)
        reached = callback.best >= settings["target"]
        return {"count": model.num_timesteps, **clock.read(), "best": callback.best, "reached": reached}

    serve(train)


if __name__ == "__main__":
    main()
