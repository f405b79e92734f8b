"""Small tasks whose every number is known, and a configuration that trains in seconds."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from tensordict import TensorDict

from tesserl_preference_data import cut_segments, make_pairs, save_pairs

THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))
"""CPU threads of torch in this process and of the runs that are written: two in half of ``nox -s portability``."""


@pytest.fixture(scope="session", autouse=True)
def stoppable_processes():
    """Let processes that tests start end on every signal, also under nohup and as background jobs of a shell."""
    for number, handler in [(signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)]:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _as_in_a_new_process():
    """No test depends on the ones before it: a run sets the threads, and everything random moves the generator."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)


class Counting(gym.Env):
    """Observation ``[episode, t]``; reward 10 * episode + t; episode e lasts ``lengths[e]`` steps.

    Even episodes terminate, odd ones are truncated.
    """

    def __init__(self, lengths: tuple[int, ...]) -> None:
        self.observation_space = spaces.Box(-100.0, 100.0, (2,), np.float32)
        self.action_space = spaces.Discrete(3)
        self.lengths, self.episode, self.t = lengths, -1, 0
        self.actions: list[int] = []

    def _observation(self) -> np.ndarray:
        return np.array([self.episode, self.t], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self._observation(), {}

    def step(self, action: int):
        self.actions.append(int(action))
        self.t += 1
        done = self.t >= self.lengths[self.episode % len(self.lengths)]
        reward = 10.0 * self.episode + self.t
        return self._observation(), reward, done and self.episode % 2 == 0, done and self.episode % 2 == 1, {}


def counting_envs(mode: AutoresetMode, *lengths: tuple[int, ...]) -> SyncVectorEnv:
    return SyncVectorEnv([lambda item=item: Counting(item) for item in lengths], autoreset_mode=mode)


CONFIG = """
name: tiny
seed: 3
total_steps: 240
environment: {id: ENV, num_envs: 3}
nn:
  vision: VISION
  vector: VECTOR
  heads: {hidden_sizes: [11]}
optimizer: {kind: adam, learning_rate: 1.0e-3}
evaluation: {interval: 60, episodes: 2, final_episodes: 3, seed: 100, num_envs: 2, max_episode_steps: 50}
checkpoint: {interval: 40, keep_last: 2}
logging: {interval: 30, tensorboard: false}
"""

ALGORITHMS = {
    "iqn": """
algorithm: iqn
iqn:
  num_taus: 4
  num_target_taus: 6
  num_policy_taus: 5
  num_cosines: 7
  num_steps: 3
  batch_size: 9
  update_interval: 2
  collect_steps: 1
  exploration: {kind: epsilon, epsilon: {kind: linear, knots: [[0, 1.0], [100, 0.1]]}}
  target_update: {kind: soft, rate: 0.05}
replay: {kind: uniform, capacity: 90, warmup_steps: 30}
""",
    "ppo": """
algorithm: ppo
ppo:
  num_steps: 10
  num_epochs: 2
  num_minibatches: 3
  clip_epsilon: {kind: linear, knots: [[0, 0.3], [200, 0.1]]}
""",
    "grpo": """
algorithm: grpo
grpo:
  group_size: 4
  num_groups: 2
  advantages: {kind: to_go, baseline: alive}
  loss: {kind: clip}
  reduction: dapo
  num_epochs: 2
  num_minibatches: 3
""",
    "dpo": """
algorithm: dpo
pairs: {source: {kind: online, num_groups: 1, group_size: 3, buffer_size: 8, num_epochs: 2}, holdout_fraction: 0.2}
dpo:
  beta: {kind: linear, knots: [[0, 0.3], [200, 0.1]]}
  batch_size: 5
""",
    "cpl": """
algorithm: cpl
pairs:
  source:
    kind: online
    num_groups: 2
    group_size: 2
    same_start: false
    pairs_per_iteration: 7
    segments: {kind: variable, min_length: 5, max_length: 9}
    teacher: {beta: 10.0, mistake: 0.1}
    ties: keep
cpl: {batch_size: 4}
""",
}

TASKS = {
    "CartPole-v1": ("{kind: none}", "{kind: mlp, hidden_sizes: [5]}"),
    "LunarLander-v3": ("{kind: none}", "{kind: mlp, hidden_sizes: [5]}"),
    "MinAtar/Breakout-v1": ("{kind: cnn, channels: [5], kernel_sizes: [3], strides: [1]}", "{kind: none}"),
}


MORE_TASKS = {"Pendulum-v1": TASKS["CartPole-v1"]}  # not for every algorithm


def config_text(environment: str, algorithm: str = "iqn") -> str:
    vision, vector = (TASKS | MORE_TASKS)[environment]
    text = CONFIG.replace("ENV", environment).replace("VISION", vision).replace("VECTOR", vector)
    threads = "" if THREADS == 1 else f"num_threads: {THREADS}\n"
    return threads + text + ALGORITHMS[algorithm]


@pytest.fixture
def write_config(tmp_path: Path):
    """Writes a tiny configuration for a task and an algorithm and returns its path."""

    def write(environment: str = "CartPole-v1", algorithm: str = "iqn", **replacements: str) -> Path:
        text = config_text(environment, algorithm)
        for old, new in replacements.items():
            assert old in text, old
            text = text.replace(old, new)
        path = tmp_path / "tiny.yaml"
        path.write_text(text)
        return path

    return write


def episodes(environment: str, number: int, seed: int = 1) -> list[TensorDict]:
    """Episodes of random actions."""
    env, trajectories = gym.make(environment, max_episode_steps=30), []
    env.action_space.seed(seed)
    for episode in range(number):
        observation, _ = env.reset(seed=seed + episode)
        steps, done = [], False
        while not done:
            action = env.action_space.sample()
            after, reward, terminated, truncated, _ = env.step(action)
            steps.append((observation, action, np.float32(reward)))
            observation, done = after, terminated or truncated
        observations, actions, rewards = (torch.as_tensor(np.array(each)) for each in zip(*steps, strict=True))
        data = {"observation": observations, "action": actions, "next": {"reward": rewards.unsqueeze(1)}}
        trajectories.append(TensorDict(data, [len(steps)]))
    return trajectories


@pytest.fixture(scope="session")
def stores(tmp_path_factory):
    """A directory of pairs for each task."""
    root, generator = tmp_path_factory.mktemp("pairs"), torch.Generator().manual_seed(1)
    for environment in ("CartPole-v1", "Pendulum-v1"):
        pool = cut_segments(episodes(environment, 20), generator=generator)
        save_pairs(make_pairs(pool, num_pairs=60, generator=generator), root / environment)
    return root


@pytest.fixture(scope="session")
def hf_models(tmp_path_factory):
    """Local directories of tiny random models of Hugging Face, by name."""
    import transformers

    tiny = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    configs = {
        "vit": transformers.ViTConfig(**tiny, intermediate_size=16, image_size=8, patch_size=4),
        "dinov2": transformers.Dinov2Config(**tiny, mlp_ratio=2, image_size=12, patch_size=4),
        "bert": transformers.BertConfig(**tiny, intermediate_size=16, vocab_size=5, max_position_embeddings=32),
    }
    root = tmp_path_factory.mktemp("hf")
    for name, config in configs.items():
        transformers.AutoModel.from_config(config).save_pretrained(root / name)
        record = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.2, 0.3]}
        (root / name / "preprocessor_config.json").write_text(json.dumps(record))
    return {name: str(root / name) for name in configs}
