"""Environments come back to where they were, or it is said that they did not."""

import json
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from minatar import gym as minatar_gym

from tesserl_environments import (
    AtariEnvironments,
    FrameSkip,
    Resumable,
    Telemetry,
    WorkerEnvironments,
    crop_edges,
    make_environments,
    resize,
    stack_frames,
    step,
    to_grayscale,
)
from tesserl_environments.action_record import MAX_ACTIONS, ActionRecord
from tesserl_environments.snapshots import generators_of, restore, snapshot

pytestmark = pytest.mark.kernel_free

if "MinAtar/Breakout-v1" not in gym.registry:
    minatar_gym.register_envs()


def make(environment: str, kind=SyncVectorEnv):
    makers = [lambda i=i: Resumable(gym.make(environment), i) for i in range(3)]
    return kind(makers, autoreset_mode=AutoresetMode.SAME_STEP)


def play(environments, steps: int, seed: int):
    generator = np.random.default_rng(seed)
    space = environments.single_action_space
    rows = []
    for _ in range(steps):
        if isinstance(space, gym.spaces.Discrete):
            actions = generator.integers(0, space.n, environments.num_envs)
        else:  # also beyond the bounds
            actions = generator.normal(size=(environments.num_envs, *space.shape)).astype(np.float32) * 2
        observation, reward, terminated, truncated, _ = step(environments, actions)
        parts = observation.values() if isinstance(observation, dict) else [observation]
        rows.append([part.copy() for part in (*parts, reward, terminated, truncated)])
    return rows


def go_on_alike(first, second, steps: int) -> None:
    for left, right in zip(play(first, steps, 2), play(second, steps, 2), strict=True):
        for one, other in zip(left, right, strict=True):
            assert np.array_equal(one, other)
    assert snapshot(first) == snapshot(second)


@pytest.mark.parametrize(
    "environment",
    ["CartPole-v1", "LunarLander-v3", "MinAtar/Breakout-v1", "MinAtar/Seaquest-v1", "Pendulum-v1"],
)
@pytest.mark.parametrize("steps", [0, 3, 70])
def test_a_restored_environment_goes_on_bit_for_bit(environment, steps):
    first, second = make(environment), make(environment)
    first.reset(seed=[11, 22, 33])
    play(first, steps, 1)
    snapshots = json.loads(json.dumps(snapshot(first)))
    assert restore(second, snapshots)
    go_on_alike(first, second, 150)


def test_an_atari_game_comes_back_though_its_generator_is_out_of_reach():
    wrappers = [partial(TimeLimit, max_episode_steps=30)]
    first, second = (make_environments("ALE/Breakout-v5", 2, wrappers=wrappers) for _ in range(2))
    first.reset(seed=[11, 22])
    play(first, 50, 1)
    assert restore(second, json.loads(json.dumps(snapshot(first))))
    go_on_alike(first, second, 40)


@pytest.mark.parametrize("continuous", [False, True])
def test_the_wrappers_of_images_come_back_with_the_car(continuous):
    wrappers = [
        partial(TimeLimit, max_episode_steps=50),
        partial(FrameSkip, num_frames=4),
        Telemetry,
        partial(crop_edges, bottom=12),
        to_grayscale,
        partial(resize, height=42, width=48),
        partial(stack_frames, num_frames=4),
    ]
    kwargs = {"continuous": continuous}
    first, second = (make_environments("CarRacing-v3", 2, kwargs=kwargs, wrappers=wrappers) for _ in range(2))
    first.reset(seed=[11, 22])
    play(first, 20, 1)  # a second episode is on its way
    snapshots = json.loads(json.dumps(snapshot(first)))
    assert [len(snapshot["actions"]) for snapshot in snapshots] == [7, 7]
    assert restore(second, snapshots)
    go_on_alike(first, second, 10)
    cars = [[sub.unwrapped.car.hull.position.x for sub in environments.envs] for environments in (first, second)]
    assert cars[0] == cars[1]


def test_workers_in_other_processes_are_restored_too():
    first, second = make("CartPole-v1", WorkerEnvironments), make("CartPole-v1", WorkerEnvironments)
    try:
        first.reset(seed=[1, 2, 3])
        play(first, 25, 1)
        assert restore(second, snapshot(first))
        go_on_alike(first, second, 40)
    finally:
        first.close()
        second.close()


class Forgetful(gym.Env):
    """Draws from a generator that nobody can see."""

    observation_space = gym.spaces.Box(-9, 9, (1,))
    action_space = gym.spaces.Discrete(2)
    hidden = np.random.default_rng(0)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.hidden.normal(size=1).astype(np.float32), {}

    def step(self, action):
        return self.hidden.normal(size=1).astype(np.float32), 0.0, False, False, {}


def test_an_environment_with_hidden_state_is_found_out():
    environment = Resumable(Forgetful(), 0)
    environment.reset(seed=1)
    environment.step(0)
    assert not Resumable(Forgetful(), 0).restore([environment.snapshot()])


def test_natively_vectorised_environments_have_no_snapshot():
    environments = gym.make_vec("CartPole-v1", 2, "vector_entry_point")
    assert snapshot(environments) is None
    assert not restore(environments, None)


@pytest.mark.parametrize("action", [[], 7, [0, 1]])
def test_a_snapshot_with_an_action_that_the_task_does_not_take_is_not_restored(action):
    environments = make_environments("CartPole-v1", 2)
    environments.reset(seed=1)
    for _ in range(3):
        environments.step(np.array([0, 1]))
    saved = snapshot(environments)
    assert restore(environments, saved)
    saved[0]["actions"][1] = action
    assert not restore(environments, saved)


def test_another_kind_of_generator_is_refused():
    environment = gym.make("CartPole-v1")
    generators = generators_of(environment)
    state = {**generators.state(), "bit_generator": "MT19937"}
    with pytest.raises(ValueError, match="expected MT19937, got PCG64; resume with the versions in the manifest"):
        generators.set_state(state)


# --- episodes without an end --------------------------------------------------------------------------------------


class Endless(gym.Env):
    """Six numbers for each action, for ever."""

    observation_space = gym.spaces.Box(-1, 1, (4,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (6,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(4, np.float32), {}

    def step(self, action):
        return np.zeros(4, np.float32), 0.0, False, False, {}


def test_what_an_endless_episode_leaves_in_memory_and_in_a_checkpoint_does_not_grow():
    environment = Resumable(Endless(), 0)
    environment.reset(seed=1)
    action = np.full(6, 0.123456, np.float32)
    for _ in range(MAX_ACTIONS):
        environment.step(action)
    assert len(environment.snapshot()["actions"]) == MAX_ACTIONS
    sizes = []
    for _ in range(2):
        for _ in range(1000):
            environment.step(action)
        sizes.append((len(json.dumps(environment.snapshot())), environment._actions._buffer.nbytes))
    assert sizes[0] == sizes[1]
    assert sizes[0][1] == 0
    assert environment.snapshot()["actions"] is None
    environment.reset()
    environment.step(action)
    assert environment.snapshot()["actions"] == [action.tolist()]


def test_environments_with_an_episode_that_is_too_long_are_not_restored():
    first, second = (SyncVectorEnv([lambda i=i: Resumable(Endless(), i) for i in range(2)]) for _ in range(2))
    first.reset(seed=[1, 2])
    first.envs[1]._actions = ActionRecord(limit=3)
    for steps, restored in ((3, True), (1, False)):
        for _ in range(steps):
            first.step(np.zeros((2, 6), np.float32))
        assert restore(second, json.loads(json.dumps(snapshot(first)))) is restored


@pytest.mark.parametrize("shape", [(), (3,)])
def test_a_record_keeps_actions_in_their_order_and_type_up_to_its_limit(shape):
    generator, record = np.random.default_rng(1), ActionRecord(limit=40)
    actions = generator.integers(0, 9, (41, *shape)) if not shape else generator.normal(size=(41, *shape))
    row = np.zeros_like(actions[0]) if shape else None
    for action in actions[:40]:
        if row is not None:
            row[:] = action  # an array that is used again
        record.append(action if row is None else row)
    assert record.plain() == actions[:40].tolist()
    assert len(record) == 40
    record.append(actions[40])
    record.append(actions[40])
    assert (record.plain(), len(record), record.is_complete) == (None, 0, False)
    record.load(actions[5:7])
    assert record.plain() == actions[5:7].tolist()


def test_a_game_without_an_end_is_seeded_anew_at_its_next_start():
    games = AtariEnvironments("pong", 2, autoreset_mode=AutoresetMode.SAME_STEP, max_num_frames_per_episode=400)
    games.reset(seed=[1, 2])
    games._actions[1] = ActionRecord(limit=20)
    before, ended = games._seeds.copy(), np.zeros(2, np.bool_)
    for number in range(150):
        ended |= games.step(np.zeros(2, np.int64))[3]
        if number == 30:
            assert [snapshot["actions"] is None for snapshot in games.snapshot()] == [False, True]
            assert not restore(games, games.snapshot())
    assert ended.all()
    assert (games._seeds != before).tolist() == [False, True]
    games.close()
