"""Atari games in ale_py's vector environment: frames, ends of episodes, evaluation and resuming."""

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from torchrl.data import LazyTensorStorage

from tesserl_configs import ConfigError, load_config
from tesserl_replay import FrameStorage, NStepWindow
from tesserl_trainer import train
from tesserl_trainer.run import resumable
from tesserl_trainer.run.checkpoints import Checkpoints
from tesserl_trainer.run.collect import Collector
from tesserl_trainer.run.evaluate import evaluate_policy
from tesserl_trainer.run.observations import ObservationLayout
from tesserl_trainer.wiring import atari
from tesserl_trainer.wiring.atari import AtariEnvironments
from tesserl_trainer.wiring.environments import make_environments, worker_seeds

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


def games(mode=AutoresetMode.SAME_STEP, num_envs=2, **options):
    return AtariEnvironments("breakout", num_envs, autoreset_mode=mode, num_threads=1, **options)


def moves(steps, num_envs=2, seed=0):
    return np.random.default_rng(seed).integers(0, 4, (steps, num_envs))


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


def test_continuous_actions_reach_the_game():
    environments = games(continuous=True)
    environments.reset(seed=[1, 2])
    paddles = []
    for angle in (0.0, np.pi):  # the joystick to the right, to the left
        for _ in range(12):
            frames = environments.step(np.array([[1.0, angle, 0.0]] * 2, np.float32))[0]
        paddles.append(frames[0, -1, 73:77].mean(0))  # the rows of the paddle
    assert not np.array_equal(*paddles)
    restored = games(continuous=True)
    assert restored.restore(json.loads(json.dumps(environments.snapshot())))


@pytest.mark.parametrize("sticky", [0.0, 0.25])
def test_the_first_episode_is_ale_pys_own_and_later_ones_are_its_own_of_their_seed(sticky):
    from ale_py.vector_env import AtariVectorEnv

    environments = games(AutoresetMode.DISABLED, repeat_action_probability=sticky, reward_clipping=False)
    for seeds in ([5, 2**31 + 3], [8, 9]):
        frames, _ = environments.reset(seed=seeds)
        own = [
            AtariVectorEnv("breakout", 1, num_threads=1, repeat_action_probability=sticky, reward_clipping=False)
            for _ in seeds
        ]
        expected = [one.reset(seed=np.array([seed % 2**31]))[0] for one, seed in zip(own, seeds, strict=True)]
        assert np.array_equal(frames, np.concatenate(expected))
        for actions in moves(60):
            rows = [one.step(actions[i : i + 1])[:4] for i, one in enumerate(own)]
            for got, parts in zip(environments.step(actions)[:4], zip(*rows, strict=True), strict=True):
                assert np.array_equal(got, np.concatenate(parts))


def test_an_ended_episode_shows_its_last_frame_and_the_next_one_starts_with_one_frame():
    environments = games()
    before, _ = environments.reset(seed=[1, 2])
    ends = 0
    for actions in moves(320):
        before = before.copy()
        frames, _, terminated, truncated, info = environments.step(actions)
        for i in np.flatnonzero(terminated | truncated):
            assert np.array_equal(info["final_obs"][i][:3], before[i][1:])
            assert not frames[i][:3].any()
            assert frames[i][3].any()
            ends += 1
        for i in np.flatnonzero(~(terminated | truncated)):
            assert np.array_equal(frames[i][:3], before[i][1:])
        before = frames
    assert ends >= 2


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


def test_a_lost_life_ends_the_episode_the_game_goes_on_or_starts_anew_as_told():
    lives = {}
    for name in ("life_loss_info", "episodic_life"):
        environments = games(**{name: True})
        environments.reset(seed=[1, 2])
        lives[name] = []
        for actions in moves(220):
            frames, _, terminated, _, info = environments.step(actions)
            lives[name] += environments._lives[terminated].tolist()
            if terminated.any() and name == "life_loss_info":
                lost = terminated & (environments._lives < 5)
                assert np.array_equal(info["final_obs"][lost], frames[lost])
    assert {4, 3, 2, 1, 5} <= set(lives["life_loss_info"])  # 5: the game was over and another one began
    assert set(lives["episodic_life"]) == {5}


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


@pytest.mark.parametrize(
    "options",
    [{}, {"repeat_action_probability": 0.25}, {"life_loss_info": True}, {"episodic_life": True, "grayscale": False}],
    ids=lambda options: "-".join(options) or "plain",
)
def test_restored_games_go_on_bit_for_bit(monkeypatch, options):
    monkeypatch.setattr(atari, "RESEED_STEPS", 60)
    first, second = games(**options), games(**options)
    first.reset(seed=[1, 2])
    for actions in moves(330):
        first.step(actions)
    snapshots = json.loads(json.dumps(resumable.snapshot(first)))
    lengths = [len(snapshot["actions"]) for snapshot in snapshots]
    assert lengths[0] != lengths[1]
    assert min(lengths) < 330  # seeded anew since the beginning
    assert resumable.restore(second, snapshots)
    for actions in moves(200, seed=1):
        for left, right in zip(first.step(actions)[:4], second.step(actions)[:4], strict=True):
            assert np.array_equal(left, right)
    assert first.snapshot() == second.snapshot()


def test_games_that_do_not_come_back_say_so():
    environments = games()
    environments.reset(seed=[1, 2])
    environments.step(np.array([1, 1]))
    snapshots = environments.snapshot()
    snapshots[1]["seed"] += 1
    assert not games().restore(snapshots)


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
    with pytest.raises(ConfigError, match=r'Breakout-v5 needs ale_py; install "tesserl-trainer\[atari\]"'):
        make_environments(environment, 1)


def test_shared_frames_are_the_frames_of_the_games():
    """Black frames before an episode and three colours included, through ends of episodes and a full buffer."""
    options = {"img_height": 21, "img_width": 20, "stack_num": 3, "frameskip": 8, "grayscale": False}
    environments = games(noop_max=1, max_num_frames_per_episode=160, **options)
    layout = ObservationLayout(environments.single_observation_space)
    actions = iter(torch.from_numpy(moves(60)))
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
