"""Environments of envpool: seeds, ends of episodes, evaluation, resuming. Most tests play on a stand-in for its API."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from tesserl_collectors.collector import Collector
from tesserl_collectors.evaluation import evaluate_policy
from tesserl_configs import ConfigError, load_config
from tesserl_configs.atari import AtariConfig
from tesserl_configs.environment import EnvironmentConfig
from tesserl_environments import AtariEnvironments, EnvpoolEnvironments, ObservationLayout, worker_seeds
from tesserl_environments.snapshots import restore, snapshot
from tesserl_replay import NStepWindow
from tesserl_trainer import train
from tesserl_trainer.algorithms.environments import atari_options, make_environments
from tesserl_training.checkpoints.run_checkpoints import Checkpoints

from .conftest import ALGORITHMS, CONFIG

pytestmark = pytest.mark.kernel_free


class Pool:
    """Observation ``[seed, episode, t]``; an episode lasts ``seed % 10`` steps; even ones terminate."""

    def __init__(self, task, env_type, num_envs, seed, **options):
        assert env_type == "gymnasium"
        assert len(seed) == num_envs
        assert all(0 <= one < 2**31 for one in seed)
        self.seeds, self.options, self.closed = np.array(seed), options, False
        self.episodes, self.t = np.zeros(num_envs, int), np.zeros(num_envs, int)
        self.over = np.zeros(num_envs, bool)
        MADE.append(self)

    def _observation(self):
        return np.stack([self.seeds, self.episodes, self.t], 1).astype(np.float32)

    def reset(self):
        return self._observation(), {}

    def send(self, actions):
        assert actions.shape == self.t.shape
        self.episodes, self.t = self.episodes + self.over, np.where(self.over, 0, self.t + 1)
        self.over = self.t == self.seeds % 10
        self.reward = np.where(self.t == 0, 0.0, actions + self.t).astype(np.float32)

    def recv(self):
        even = self.episodes % 2 == 0
        return self._observation(), self.reward, self.over & even, self.over & ~even, {}

    def close(self):
        self.closed = True


MADE: list[Pool] = []
SPEC = SimpleNamespace(
    gymnasium_observation_space=spaces.Box(-(2.0**31), 2.0**31, (3,)),
    gymnasium_action_space=spaces.Discrete(2),
    config=SimpleNamespace(max_episode_steps=500),
)


def make_spec(task, num_threads=0, thread_affinity_offset=-1, size=1):
    return SPEC


@pytest.fixture
def envpool(monkeypatch):
    """The part of envpool 1.2 that is used."""
    MADE.clear()
    module = SimpleNamespace(
        __spec__=object(), list_all_envs=lambda: ["Count-v0", "CartPole-v1"], make_spec=make_spec, make=Pool
    )
    monkeypatch.setitem(sys.modules, "envpool", module)
    return MADE


def collected(num_steps, rounds):
    environments = EnvpoolEnvironments("Count-v0", 2, autoreset_mode=AutoresetMode.NEXT_STEP)
    layout = ObservationLayout(environments.single_observation_space)
    policy = lambda observation: torch.zeros(len(observation), dtype=torch.int64)  # noqa: E731
    collector = Collector(environments, layout, policy, seeds=[3, 5])
    return collector.collect(rounds).clone(), NStepWindow(num_steps, 0.9), collector


@pytest.mark.parametrize("num_steps", [1, 3])
def test_the_step_that_resets_is_no_transition_and_no_window_crosses_it(envpool, num_steps):
    batch, window, _ = collected(num_steps, 24)
    assert batch["mask"][0].int().tolist() == [1, 1, 1, 0] * 6
    assert batch["mask"][1].int().tolist() == [1, 1, 1, 1, 1, 0] * 4
    transitions = window.extend(batch)
    still_open = int(batch["mask"][:, 25 - num_steps :].sum())
    assert len(transitions) == 18 + 20 - still_open
    start, end = transitions["observation"], transitions["next", "observation"]
    assert torch.equal(start[:, :2], end[:, :2])  # the seed and the episode
    assert torch.equal(end[:, 2] - start[:, 2], transitions["steps_to_next_obs"].flatten())
    assert (end[:, 2] > start[:, 2]).all()


def test_ends_are_told_apart_and_returns_leave_the_reset_out(envpool):
    batch, _, collector = collected(1, 12)
    over = batch["next"]
    assert over["terminated"][0, :, 0].nonzero().flatten().tolist() == [2, 10]
    assert over["truncated"][0, :, 0].nonzero().flatten().tolist() == [6]
    episodes = [(episode.episode_return, episode.length) for episode in collector.pop_episodes()]
    assert sorted(episodes) == [(6.0, 3)] * 3 + [(15.0, 5)] * 2


def test_seeds_are_one_for_each_environment_and_fit_envpool(envpool):
    environments = EnvpoolEnvironments("Count-v0", 3, autoreset_mode=AutoresetMode.NEXT_STEP, num_threads=2)
    seeds = worker_seeds(1, environments)
    assert len(set(seeds)) == 3
    for seed, expected in ((seeds, [one % 2**31 for one in seeds]), (7, [7, 8, 9]), (2**31 + 4, [4, 5, 6])):
        environments.reset(seed=seed)
        assert envpool[-1].seeds.tolist() == expected
    environments.reset()
    assert len(set(envpool[-1].seeds.tolist())) == 3
    assert envpool[-1].options == {"num_threads": 2}


def test_single_environments_are_reset_by_seeds(envpool):
    environments = EnvpoolEnvironments("Count-v0", 3, autoreset_mode=AutoresetMode.DISABLED, num_threads=4)
    observation, _ = environments.reset(seed=[4, 5, 6])
    assert observation.tolist() == [[4, 0, 0], [5, 0, 0], [6, 0, 0]]
    environments.step(np.array([0, 1, 1]))
    observation, _ = environments.reset(seed=[1, 8, 1], options={"reset_mask": np.array([False, True, False])})
    assert observation.tolist() == [[4, 0, 1], [8, 0, 0], [6, 0, 1]]
    observation, reward, *_ = environments.step(np.array([0, 0, 1]))
    assert observation.tolist() == [[4, 0, 2], [8, 0, 1], [6, 0, 2]]
    assert reward.tolist() == [2, 1, 3]
    assert [pool.options["num_threads"] for pool in envpool] == [1] * 4


def test_evaluation_plays_one_episode_for_each_seed(envpool):
    config = EnvironmentConfig(id="Count-v0", num_envs=2, vectorization="envpool")
    for num_envs in (1, 3):
        environments = make_environments(config, num_envs, evaluation=True)
        layout = ObservationLayout(environments.single_observation_space)
        policy = lambda observation: (observation[:, 0] % 2).long()  # noqa: E731
        result = evaluate_policy(policy, environments, layout, [13, 4, 25, 9], max_episode_steps=6)
        assert result.lengths == [3, 4, 5, 6]
        assert result.returns == [9.0, 10.0, 20.0, 27.0]


@pytest.mark.parametrize(
    ("asked", "told"), [(None, {}), (7, {"max_episode_steps": 7}), (900, {"max_episode_steps": 500})]
)
def test_an_episode_is_cut_where_the_trainer_says_and_never_later_than_the_task_does(envpool, asked, told):
    config = EnvironmentConfig(id="Count-v0", num_envs=2, vectorization="envpool")
    make_environments(config, 2, evaluation=True, max_length=asked).reset(seed=3)
    threads = {"num_threads": 1, "thread_affinity_offset": -1}
    assert [pool.options for pool in envpool] == [told | threads] * 2


def test_dictionaries_are_joined_entry_by_entry(envpool, monkeypatch):
    plain = Pool._observation
    monkeypatch.setattr(Pool, "_observation", lambda pool: {"a": plain(pool), "b": plain(pool)[:, :1]})
    environments = EnvpoolEnvironments("Count-v0", 2, autoreset_mode=AutoresetMode.DISABLED)
    observation, _ = environments.reset(seed=[4, 5])
    assert {key: value.shape for key, value in observation.items()} == {"a": (2, 3), "b": (2, 1)}


def test_closing_closes_every_pool(envpool):
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED):
        environments = EnvpoolEnvironments("Count-v0", 2, autoreset_mode=mode)
        environments.reset(seed=1)
        environments.close()
        EnvpoolEnvironments("Count-v0", 2, autoreset_mode=mode).close()  # never reset
    assert [pool.closed for pool in envpool] == [True] * 3


def test_a_run_is_resumed_and_says_that_it_is_not_exact(envpool, tmp_path):
    text = CONFIG.replace("VISION", "{kind: none}").replace("VECTOR", "{kind: mlp, hidden_sizes: [5]}")
    text = text.replace("{id: ENV, num_envs: 3}", "{id: Count-v0, num_envs: 3, vectorization: envpool}")
    (tmp_path / "count.yaml").write_text(text + ALGORITHMS["iqn"])
    config = load_config(tmp_path / "count.yaml", ["evaluation.episodes=1", "evaluation.final_episodes=1"])
    train(config.model_copy(update={"total_steps": 60}), run_dir=tmp_path / "run")
    train(config.model_copy(update={"total_steps": 90}), run_dir=tmp_path / "run", resume=True)
    state = json.loads((Checkpoints(tmp_path / "run").latest() / "state.json").read_text())
    assert state["exact"] is False
    environments = make_environments(config.environment, 2)
    assert snapshot(environments) is None
    assert not restore(environments, None)


def test_mistakes_name_the_key_and_the_remedy(envpool, monkeypatch):
    config = EnvironmentConfig(id="Pong-v9", num_envs=2, vectorization="envpool")
    with pytest.raises(ConfigError, match=r"environment.id: envpool has no Pong-v9; choose one of envpool.list_all"):
        make_environments(config, 2)
    config = EnvironmentConfig(id="Count-v0", num_envs=2, vectorization="envpool", kwargs={"sise": 1})
    with pytest.raises(ConfigError, match=r"environment.kwargs: Count-v0 does not take \{'sise': 1\}"):
        make_environments(config, 2)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'envpool needs the package .*; install "tesserl-environments\[envpool\]"'):
        make_environments(config, 2)


def test_the_options_of_atari_are_translated():
    options = atari_options(AtariConfig(frameskip=3, reward_clipping=False, grayscale=False, num_threads=2))
    assert options == {
        "frame_skip": 3, "gray_scale": False, "reward_clip": False, "img_height": 84, "img_width": 84, "stack_num": 4,
        "repeat_action_probability": 0.0, "episodic_life": False, "noop_max": 30, "use_fire_reset": True,
        "full_action_space": False, "num_threads": 2, "thread_affinity_offset": -1, "max_episode_steps": 36_000,
    }  # fmt: skip
    config = EnvironmentConfig(id="ALE/Pong-v5", vectorization="envpool", atari=AtariConfig(stack_num=2))
    assert config.stacked_frames == 2


SMALL = AtariConfig(img_height=21, img_width=20, stack_num=2, noop_max=1, num_threads=1, episodic_life=True)


def test_the_real_one_shows_what_ale_py_shows():
    pytest.importorskip("envpool")
    config = EnvironmentConfig(id="ALE/SpaceInvaders-v5", vectorization="envpool", atari=SMALL)
    ours = make_environments(config, 2, evaluation=True)
    theirs = AtariEnvironments(
        "space_invaders", 2, autoreset_mode=AutoresetMode.DISABLED,
        num_threads=1, img_height=21, img_width=20, stack_num=2, noop_max=0, reward_clipping=False,
    )  # fmt: skip
    assert ours.single_observation_space == theirs.single_observation_space
    assert ours.single_action_space == theirs.single_action_space
    ours.reset(seed=[1, 2])
    theirs.reset(seed=[1, 2])
    for t in range(60):
        actions = np.array([t % 6, (t // 3) % 6])
        for got, expected in zip(ours.step(actions)[:2], theirs.step(actions)[:2], strict=True):
            if t > 0:  # the first stack of envpool repeats its frame
                assert np.array_equal(got, expected)


def test_the_real_one_spends_a_step_on_a_reset():
    pytest.importorskip("envpool")
    block = SMALL.model_copy(update={"max_num_frames_per_episode": 24})
    config = EnvironmentConfig(id="ALE/Breakout-v5", vectorization="envpool", atari=block)
    environments = make_environments(config, 3)
    layout = ObservationLayout(environments.single_observation_space)
    policy = lambda pixels: torch.ones(len(pixels), dtype=torch.int64)  # noqa: E731
    batch = Collector(environments, layout, policy, seeds=worker_seeds(1, environments)).collect(15)
    assert torch.equal(batch["next", "truncated"][..., 0].nonzero()[:, 1], torch.tensor([5, 12] * 3))
    assert (~batch["mask"]).nonzero()[:, 1].tolist() == [6, 13] * 3
    environments.close()
