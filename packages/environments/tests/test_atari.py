"""Atari games in ale_py's vector environment: frames, ends of episodes and states."""

import json

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from tesserl_environments import (
    AtariEnvironments,
    EnvironmentArgumentError,
    ObservationLayout,
    atari,
    make_environments,
    worker_seeds,
)
from tesserl_environments.snapshots import restore, snapshot

SMALL = {"img_height": 21, "img_width": 20, "stack_num": 2, "frameskip": 8, "num_threads": 1}


def games(mode=AutoresetMode.SAME_STEP, num_envs=2, **options):
    return AtariEnvironments("breakout", num_envs, autoreset_mode=mode, num_threads=1, **options)


def moves(steps, num_envs=2, seed=0):
    return np.random.default_rng(seed).integers(0, 4, (steps, num_envs))


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
    snapshots = json.loads(json.dumps(snapshot(first)))
    lengths = [len(snapshot["actions"]) for snapshot in snapshots]
    assert lengths[0] != lengths[1]
    assert min(lengths) < 330  # seeded anew since the beginning
    assert restore(second, snapshots)
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


def make(game="ALE/Breakout-v5", **options):
    return make_environments(game, 3, vectorization="atari", kwargs=SMALL, **options)


def test_an_id_makes_the_games_with_its_options():
    environments = make_environments(
        "ALE/Breakout-v5", 3, vectorization="atari", kwargs=SMALL | {"grayscale": False, "full_action_space": True}
    )
    observation, _ = environments.reset(seed=worker_seeds(1, environments))
    assert observation.shape == (3, 6, 21, 20)  # two frames of three colours
    assert environments.observation_space.contains(observation)
    assert environments.single_action_space == gym.spaces.Discrete(18)
    assert environments.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert ObservationLayout(environments.single_observation_space).shapes == {"pixels": (6, 21, 20)}
    assert len(set(worker_seeds(1, environments))) == 3
    assert make(resets_itself=False).metadata["autoreset_mode"] is AutoresetMode.DISABLED


@pytest.mark.parametrize(("given", "limit", "steps"), [({}, 9, 9), ({"max_num_frames_per_episode": 160}, 50, 20)])
def test_an_episode_is_cut_at_the_smaller_of_two_limits(given, limit, steps):
    options = SMALL | {"noop_max": 0, "use_fire_reset": False} | given
    environments = make_environments("ALE/Breakout-v5", 2, vectorization="atari", kwargs=options, max_length=limit)
    environments.reset(seed=[1, 2])
    truncated = [environments.step(np.zeros(2, int))[3].tolist() for _ in range(steps)]
    assert truncated == [[False, False]] * (steps - 1) + [[True, True]]


def test_other_tasks_and_a_missing_extra_are_named(monkeypatch):
    with pytest.raises(EnvironmentArgumentError, match=r"^id: vectorization atari plays .*, got CartPole-v1"):
        make("CartPole-v1")
    with pytest.raises(EnvironmentArgumentError, match=r"^id: .*NoSuchGame"):
        make("ALE/NoSuchGame-v5")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EnvironmentArgumentError, match=r'needs ale_py; install "tesserl-environments\[atari\]"'):
        make()
