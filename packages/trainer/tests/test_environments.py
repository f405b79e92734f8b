"""``environment:`` as a vector environment, and its wrappers."""

import os
import time

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from tesserl_configs import ConfigError, load_config
from tesserl_trainer.run.workers import step
from tesserl_trainer.wiring import wrappers
from tesserl_trainer.wiring.environments import discrete_actions, make_environments, worker_seeds


@pytest.fixture
def make(write_config):
    made = []

    def make(environment="CartPole-v1", evaluation=False, **changes):
        block = load_config(write_config(environment, **changes)).environment
        made.append(make_environments(block, block.num_envs, evaluation=evaluation))
        return made[-1]

    yield make
    for environments in made:
        environments.close()


@pytest.mark.parametrize("vectorization", ["sync", "async", "vector_entry_point"])
def test_every_vectorization_makes_the_task(make, vectorization):
    environments = make(**{"num_envs: 3": f"num_envs: 3, vectorization: {vectorization}"})
    observation, _ = environments.reset(seed=1)
    assert observation.shape == (3, 4)
    expected = AutoresetMode.NEXT_STEP if vectorization == "vector_entry_point" else AutoresetMode.SAME_STEP
    assert environments.metadata["autoreset_mode"] is expected


def test_evaluation_resets_only_when_told_and_sees_the_tasks_own_rewards(make):
    both = "[{kind: reward_scale, scale: 0.5}, {kind: time_limit, max_episode_steps: 3}]"
    wrapped = {"num_envs: 3": f"num_envs: 3, wrappers: {both}"}
    training, evaluation = make(**wrapped), make(evaluation=True, **wrapped)
    assert evaluation.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    for environments, reward in ((training, 0.5), (evaluation, 1.0)):
        environments.reset(seed=1)
        for _ in range(3):
            _, rewards, _, truncated, _ = environments.step(np.array([0, 1, 0]))
        assert rewards.tolist() == [reward] * 3
        assert truncated.all()


def test_arguments_reach_the_environment(make):
    environments = make("LunarLander-v3", **{"num_envs: 3": "num_envs: 3, kwargs: {gravity: -5.0}"})
    assert environments.envs[0].unwrapped.gravity == -5.0


def test_workers_have_different_seeds_and_two_runs_agree(make):
    environments = make()
    seeds = worker_seeds(5, environments)
    assert seeds == worker_seeds(5, environments)
    assert len(set(seeds)) == 3
    assert set(seeds).isdisjoint(worker_seeds(6, environments))


class Pixels(gym.Env):
    """Images that count: ``[H, W, C]`` filled with the step's number; the reward is the step."""

    def __init__(self, shape=(4, 5, 2)):
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)
        self.action_space = spaces.Discrete(2)

    def _image(self):
        return np.full(self.observation_space.shape, self.t, np.uint8)

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self._image(), {}

    def step(self, action):
        self.t += 1
        return self._image(), float(self.t), self.t >= 7, False, {}


@pytest.mark.parametrize(("shape", "stacked"), [((4, 5, 2), (4, 5, 6)), ((2, 4, 5), (6, 4, 5)), ((4, 5), (4, 5, 3))])
def test_frames_are_stacked_oldest_first_and_never_across_episodes(shape, stacked):
    environment = wrappers.FrameStack(Pixels(shape), 3)
    assert environment.observation_space.shape == stacked

    def frames(observation):
        axis = 0 if stacked[0] == 6 else -1
        return [int(part.max()) for part in np.split(observation, 3, axis)]

    assert frames(environment.reset()[0]) == [0, 0, 0]
    assert [frames(environment.step(0)[0]) for _ in range(4)] == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert frames(environment.reset()[0]) == [0, 0, 0]
    assert environment.observation_space.contains(environment.reset()[0])


def test_frame_stack_refuses_vectors():
    with pytest.raises(ConfigError, match=r"frame_stack needs one image as observation, got Box\(.*\(4,\)"):
        wrappers.FrameStack(gym.make("CartPole-v1"), 2)


def test_frame_skip_sums_rewards_and_stops_at_the_end():
    environment = wrappers.FrameSkip(Pixels(), 3)
    environment.reset()
    steps = [environment.step(0)[1:3] for _ in range(3)]
    assert steps == [(1 + 2 + 3, False), (4 + 5 + 6, False), (7.0, True)]


def test_reward_clip_bounds_rewards(make):
    environments = make(**{"num_envs: 3": "num_envs: 3, wrappers: [{kind: reward_clip, low: -0.5, high: 0.25}]"})
    environments.reset(seed=1)
    assert environments.step(np.array([0, 1, 0]))[1].tolist() == [0.25] * 3


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (spaces.Discrete(4), (4, None)),
        (spaces.MultiDiscrete([3, 3, 3, 3]), (3, 4)),
        (spaces.MultiDiscrete([5]), (5, 1)),
    ],
)
def test_action_spaces_become_actions_and_blocks(space, expected):
    assert discrete_actions(space) == expected


@pytest.mark.parametrize(
    "space", [spaces.Box(-1, 1, (2,)), spaces.MultiDiscrete([2, 3]), spaces.Discrete(3, start=1), spaces.MultiBinary(2)]
)
def test_other_action_spaces_are_refused(space):
    with pytest.raises(ConfigError, match=r"environment.id: iqn needs a Discrete action space"):
        discrete_actions(space)


class Troubled(gym.Env):
    """Sleeps, exits or raises when told to."""

    observation_space = spaces.Box(-1, 1, (1,))
    action_space = spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        if action == 1:
            time.sleep(60)
        if action == 2:
            os._exit(7)
        if action == 3:
            raise OverflowError("the task broke")
        return np.zeros(1, np.float32), 0.0, False, False, {}


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (1, RuntimeError, r"environment worker 1 did not answer within 0.5 s; raise environment.worker_timeout"),
        (2, RuntimeError, r"environment worker 1 died \(exit code \[7\]\)"),
        (3, OverflowError, r"the task broke"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_worker_that_hangs_dies_or_raises_is_named(action, error, message):
    environments = AsyncVectorEnv([Troubled] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
    try:
        environments.reset()
        step(environments, np.zeros(3, np.int64), 30.0)
        with pytest.raises(error, match=message):
            step(environments, np.array([0, action, 0]), 0.5)
    finally:
        environments.close(terminate=True)
