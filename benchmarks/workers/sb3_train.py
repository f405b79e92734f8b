"""PPO of Stable-Baselines3 as a whole program: training, its EvalCallback, checkpoints, a final evaluation."""

import sys
from pathlib import Path

import numpy as np
import torch
import yaml
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure


def main() -> None:
    settings = yaml.safe_load(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    number, evaluation, total = settings["num_envs"], settings["evaluation"], settings["total_steps"]
    steps, rates = np.array(settings["learning_rates"]).T
    seed = evaluation["seed"]
    environments = make_vec_env(settings["task"], number, seed=settings["seed"])
    evaluated = make_vec_env(settings["task"], number, seed=seed)
    model = PPO(
        "MlpPolicy",
        environments,
        seed=settings["seed"],
        device="cpu",
        learning_rate=lambda remaining: float(np.interp((1 - remaining) * total, steps, rates)),
        **settings["ppo"],
    )
    model.set_logger(configure("log", ["csv"]))
    callbacks = [
        EvalCallback(
            evaluated,
            n_eval_episodes=evaluation["episodes"],
            eval_freq=evaluation["interval"] // number,
            best_model_save_path="best",
            log_path="log",
            verbose=0,
        ),
        CheckpointCallback(settings["checkpoint"] // number, "checkpoints"),
    ]
    model.learn(total, callback=callbacks)
    for weights in (model, PPO.load("best/best_model", device="cpu")):
        evaluated.seed(seed + 1_000_000)
        mean, deviation = evaluate_policy(weights, evaluated, n_eval_episodes=evaluation["final_episodes"])
        print(f"return {mean:.1f} ± {deviation:.1f}")


if __name__ == "__main__":
    main()
