"""Tasks with any form of actions and observations: trained, resumed, evaluated, collected and exported."""

import json

import gymnasium as gym
import numpy as np
import onnxruntime
import pytest
from gymnasium import spaces

from tesserl_configs import load_config
from tesserl_environments import own_action
from tesserl_preference_data.trajectories import load_trajectories
from tesserl_trainer import train
from tesserl_trainer.cli import main

from .test_resume import outcome

ACTIONS = {
    "start": spaces.Discrete(3, start=4),
    "binary": spaces.MultiBinary(3),
    "matrix": spaces.Box(-1, 1, (2, 2), np.float32),
}
OBSERVATIONS = {
    "tuple": spaces.Tuple([spaces.Box(-9, 9, (2,), np.float32), spaces.Discrete(3, start=1)]),
    "nested": spaces.Dict(
        {"arm": spaces.Dict({"at": spaces.Box(-9, 9, (2,), np.float32)}), "gear": spaces.Discrete(3)}
    ),
}


class Strict(gym.Env):
    """Takes the actions of its space alone; its reward is their sum."""

    def __init__(self, actions="start", observations="tuple"):
        self.action_space, self.observation_space = ACTIONS[actions], OBSERVATIONS[observations]
        self.nested = observations == "nested"

    def seen(self):
        at, gear = self.np_random.normal(size=2).clip(-9, 9).astype(np.float32), int(self.np_random.integers(1, 3))
        return {"arm": {"at": at}, "gear": gear} if self.nested else (at, gear)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.seen(), {}

    def step(self, action):
        if not self.action_space.contains(action):
            raise ValueError(f"got the action {action!r}")
        self.t += 1
        return self.seen(), float(np.sum(action)), self.t == 6, False, {}


gym.register("Strict-v0", entry_point=Strict, max_episode_steps=9)

TASK = {"environment: {id: CartPole-v1,": "environment: {id: Strict-v0, kwargs: KWARGS,"}


def written(write_config, algorithm, actions, observations, **changes):
    kwargs = f"{{actions: {actions}, observations: {observations}}}"
    task = {old: new.replace("KWARGS", kwargs) for old, new in TASK.items()}
    return load_config(write_config(algorithm=algorithm, **task, **changes))


@pytest.mark.parametrize(
    ("algorithm", "actions", "observations"),
    [
        ("iqn", "start", "nested"),
        ("iqn", "binary", "tuple"),
        ("ppo", "matrix", "nested"),
        ("ppo", "binary", "tuple"),
        ("grpo", "start", "tuple"),
        ("dpo", "matrix", "tuple"),
    ],
)
def test_a_task_trains_resumes_and_is_evaluated(write_config, tmp_path, algorithm, actions, observations):
    config = written(write_config, algorithm, actions, observations)
    whole = outcome(train(config, run_dir=tmp_path / "whole"))
    train(config.model_copy(update={"total_steps": 120}), run_dir=tmp_path / "halves")
    assert outcome(train(config, run_dir=tmp_path / "halves", resume=True)) == whole
    returns = whole["evaluation"]["returns"]
    assert all((24 <= each <= 36) if actions == "start" else (-24 <= each <= 24) for each in returns)
    assert set(whole["evaluation"]["lengths"]) == {6}


@pytest.mark.parametrize("actions", list(ACTIONS))
def test_an_exported_policy_chooses_what_is_played(write_config, tmp_path, actions, capfd):
    run = train(written(write_config, "ppo", actions, "nested"), run_dir=tmp_path / "run")
    capfd.readouterr()
    assert main(["eval", str(run), "--episodes", "1", "--seed", "5"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert main(["export", str(run), "--format", "onnx"]) == 0
    session = onnxruntime.InferenceSession(run / "policy.onnx")
    environment, total = Strict(actions, "nested"), 0.0
    observation, _ = environment.reset(seed=5)
    for _ in range(6):
        vector = np.concatenate([observation["arm"]["at"], np.eye(3, dtype=np.float32)[observation["gear"]]])
        (action,) = session.run(["action"], {"observation": vector[None].astype(np.float32)})
        observation, reward, *_ = environment.step(own_action(environment.action_space, action[0]))
        total += reward
    assert total == pytest.approx(result["return_mean"], abs=1e-4)


def test_workers_and_collections_have_plain_actions_too(write_config, tmp_path):
    config = written(write_config, "ppo", "binary", "nested", **{"num_envs: 3": "num_envs: 3, vectorization: async"})
    run = train(config.model_copy(update={"total_steps": 60}), run_dir=tmp_path / "run")
    assert main(["collect", str(run), "--out", str(tmp_path / "store"), "--episodes", "2"]) == 0
    stored = load_trajectories(tmp_path / "store")
    assert stored[0]["action"].shape == (6, 3)
