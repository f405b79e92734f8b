"""Training on Atari games in ale_py's vector environment: options, ends of episodes, evaluation and resuming."""

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from torchrl.data import LazyTensorStorage

from tesserl_collectors.collector import Collector
from tesserl_collectors.evaluation import evaluate_policy
from tesserl_configs import ConfigError, load_config
from tesserl_environments import AtariEnvironments, ObservationLayout, worker_seeds
from tesserl_replay import FrameStorage, NStepWindow
from tesserl_trainer import train
from tesserl_trainer.algorithms.environments import make_environments
from tesserl_training.checkpoints.run_checkpoints import Checkpoints

from .conftest import ALGORITHMS, CONFIG

ENVIRONMENT = "environment: {id: ENV, num_envs: 3}"
SMALL = "img_height: 21, img_width: 20, stack_num: 2, frameskip: 8, num_threads: 1"


def block(tmp_path, options="", game="ALE/Breakout-v5"):
    text = CONFIG.replace("VISION", "{kind: cnn, channels: [5], kernel_sizes: [8], strides: [4]}")
    text = text.replace("VECTOR", "{kind: none}")
    task = f"environment: {{id: {game}, num_envs: 3, vectorization: atari, atari: {{{options}}}}}"
    text = text.replace(ENVIRONMENT, task)
    path = tmp_path / "atari.yaml"
    path.write_text(text + ALGORITHMS["ppo"])
    return load_config(path)


def test_a_configuration_makes_the_games_with_its_options(tmp_path):
    config = block(tmp_path, f"{SMALL}, grayscale: false, full_action_space: true")
    environments = make_environments(config.environment, 3)
    observation, _ = environments.reset(seed=worker_seeds(1, environments))
    assert observation.shape == (3, 6, 21, 20)  # two frames of three colours
    assert environments.observation_space.contains(observation)
    assert environments.single_action_space == gym.spaces.Discrete(18)
    assert environments.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    layout = ObservationLayout(environments.single_observation_space)
    assert layout.shapes == {"pixels": (6, 21, 20)}
    assert len(set(worker_seeds(1, environments))) == 3


def test_a_batch_leads_to_the_last_frame_of_an_episode_and_continues_with_the_first_of_the_next(tmp_path):
    config = block(tmp_path, f"{SMALL}, max_num_frames_per_episode: 48")
    environments = make_environments(config.environment, 3)
    layout = ObservationLayout(environments.single_observation_space)
    policy = lambda pixels: torch.ones(len(pixels), dtype=torch.int64)  # noqa: E731
    batch = Collector(environments, layout, policy, seeds=[1, 2, 3]).collect(13)
    following = batch["next"]
    assert torch.equal(following["truncated"][..., 0].nonzero()[:, 1], torch.tensor([5, 11] * 3))
    assert not following["terminated"].any()
    assert torch.equal(following["pixels"][:, :, 0], batch["pixels"][:, :, 1])  # within each transition
    assert not batch["pixels"][:, [0, 6, 12], 0].any()


def test_evaluation_plays_whole_games_with_the_games_own_rewards(tmp_path):
    config = block(tmp_path, f"{SMALL}, episodic_life: true, life_loss_info: true, repeat_action_probability: 0.25")
    outcomes = []
    for num_envs in (1, 3):
        environments = make_environments(config.environment, num_envs, evaluation=True)
        assert environments.metadata["autoreset_mode"] is AutoresetMode.DISABLED
        layout = ObservationLayout(environments.single_observation_space)
        policy = lambda pixels: pixels.sum((1, 2, 3)) % 4  # noqa: E731
        outcomes.append(evaluate_policy(policy, environments, layout, [3, 4, 5, 6], max_episode_steps=100))
    assert outcomes[0] == outcomes[1]  # who plays a seed changes nothing
    assert max(outcomes[0].lengths) > 40  # more than one life


@pytest.mark.parametrize("limit", [9, 50])
def test_an_episode_is_cut_where_the_trainer_says_and_never_later_than_the_block_does(tmp_path, limit):
    options = f"{SMALL}, noop_max: 0, use_fire_reset: false, max_num_frames_per_episode: 160"  # 20 steps
    environments = make_environments(block(tmp_path, options).environment, 2, groups=True, max_length=limit)
    environments.reset(seed=[1, 2])
    truncated = [environments.step(np.zeros(2, int))[3].tolist() for _ in range(min(limit, 20))]
    assert truncated == [[False, False]] * (min(limit, 20) - 1) + [[True, True]]


def test_rewards_are_clipped_in_training_alone(tmp_path):
    config = block(tmp_path, "frameskip: 8, num_threads: 1", game="ALE/SpaceInvaders-v5")
    rewards = {}
    for evaluation in (False, True):
        environments = make_environments(config.environment, 1, evaluation=evaluation)
        environments.reset(seed=[2])
        rewards[evaluation] = [float(environments.step(np.array([t % 6]))[1][0]) for t in range(60)]
    assert max(rewards[False]) == 1.0
    assert max(rewards[True]) >= 5.0
    assert [min(reward, 1.0) for reward in rewards[True]] == rewards[False]


def test_a_run_is_resumed_exactly(tmp_path):
    config = block(tmp_path, f"{SMALL}, repeat_action_probability: 0.25")
    changes = {"interval": 120, "episodes": 1, "final_episodes": 1, "max_episode_steps": 10}
    evaluation = config.evaluation.model_copy(update=changes)
    config = config.model_copy(update={"total_steps": 120, "evaluation": evaluation})
    train(config, run_dir=tmp_path / "whole")
    train(config.model_copy(update={"total_steps": 60}), run_dir=tmp_path / "halves")
    train(config, run_dir=tmp_path / "halves", resume=True)
    latest = [Checkpoints(tmp_path / name).latest() for name in ("whole", "halves")]
    manifests = [json.loads((path / "manifest.json").read_text()) for path in latest]
    for manifest in manifests:
        for name in ("run_id", "sha256", "record"):  # another id in every run, and times in the record
            del manifest[name]
    assert manifests[0] == manifests[1]
    assert json.loads((latest[1] / "state.json").read_text())["exact"] is True


def test_other_tasks_and_a_missing_extra_are_named(tmp_path, monkeypatch):
    environment = block(tmp_path).environment
    with pytest.raises(ConfigError, match=r"vectorization atari plays ALE/<Game>-v5, got CartPole-v1"):
        make_environments(environment.model_copy(update={"id": "CartPole-v1"}), 1)
    with pytest.raises(ConfigError, match=r"environment.id: .*NoSuchGame"):
        make_environments(environment.model_copy(update={"id": "ALE/NoSuchGame-v5"}), 1)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'Breakout-v5 needs ale_py; install "tesserl-environments\[atari\]"'):
        make_environments(environment, 1)


def test_shared_frames_are_the_frames_of_the_games():
    """Black frames before an episode and three colours included, through ends of episodes and a full buffer."""
    options = {"img_height": 21, "img_width": 20, "stack_num": 3, "frameskip": 8, "grayscale": False}
    environments = AtariEnvironments(
        "breakout",
        2,
        autoreset_mode=AutoresetMode.SAME_STEP,
        num_threads=1,
        noop_max=1,
        max_num_frames_per_episode=160,
        **options,
    )
    layout = ObservationLayout(environments.single_observation_space)
    actions = iter(torch.from_numpy(np.random.default_rng(0).integers(0, 4, (60, 2))))
    collector, window = Collector(environments, layout, lambda pixels: next(actions), seeds=[1, 2]), NStepWindow(3, 0.9)
    shared, whole, total = FrameStorage(70, num_frames=3), LazyTensorStorage(70), 0
    for _ in range(12):
        transitions = window.extend(collector.collect(5))
        for storage in (shared, whole):
            storage.set(torch.arange(total, total + len(transitions)) % 70, transitions)
        total += len(transitions)
    assert total > 70
    assert collector.episodes
    everything = whole.get(torch.arange(70))
    assert (shared.get(torch.arange(70)) == everything).all()
    assert not everything["pixels"].flatten(2).any(-1).all()  # black frames
    assert shared.num_stored < 70 * 1.4
