"""CartPole at once is CartPole one by one."""

import gymnasium as gym
import numpy as np
import pytest

from tesserl_environments import make_at_once, make_environments

SEEDS = list(range(7, 27))


@pytest.mark.parametrize("name", ["CartPole-v0", "CartPole-v1"])
def test_every_number_is_that_of_the_single_environment_of_the_seed(name):
    single = make_environments(name, len(SEEDS), resets_itself=False)
    at_once = make_at_once(name, len(SEEDS))
    random = np.random.default_rng(0)
    first, second = (environments.reset(seed=SEEDS)[0] for environments in (single, at_once))
    for step in range(600):
        assert np.array_equal(first, second)
        # the pole is held up in some of them, so that episodes of all lengths occur
        actions = np.where(random.random(len(SEEDS)) < 0.6, first[:, 2] + first[:, 3] > 0, random.integers(2, size=20))
        (first, *rest), (second, *same) = (each.step(actions.astype(np.int64)) for each in (single, at_once))
        for one, other in zip(rest[:3], same[:3], strict=True):
            assert np.array_equal(one, other)
        assert first.dtype == second.dtype
        ended = rest[1] | rest[2]
        if ended.any():
            seeds = [seed + step for seed in SEEDS]
            options = {"reset_mask": ended}
            first, second = (each.reset(seed=seeds, options=dict(options))[0] for each in (single, at_once))


def test_episodes_are_truncated_where_the_task_says():
    environments = make_at_once("CartPole-v1", 1)
    observation, _ = environments.reset(seed=[3])
    for step in range(1, 501):
        _, _, angle, speed = observation[0]
        observation, _, terminated, truncated, _ = environments.step(np.array([int(3 * angle + speed > 0)]))
        assert not terminated
        assert truncated == (step == 500)


def test_seeds_may_be_one_number_or_none():
    environments = make_at_once("CartPole-v1", 3)
    assert np.array_equal(environments.reset(seed=5)[0], environments.reset(seed=[5, 6, 7])[0])
    starts = environments.reset()[0]
    assert len(np.unique(starts)) == starts.size


def test_the_reward_of_sutton_and_barto():
    from tesserl_environments.cart_pole import CartPoleEnvironments

    environments = CartPoleEnvironments(1, 500, sutton_barto_reward=True)
    environments.reset(seed=0)
    rewards = []
    for _ in range(20):
        _, reward, terminated, _, _ = environments.step(np.ones(1, np.int64))
        rewards.append(float(reward[0]))
        if terminated[0]:
            break
    assert rewards == [0.0] * (len(rewards) - 1) + [-1.0]


def test_spaces_are_those_of_the_task_and_other_tasks_have_no_such_form():
    environments, single = make_at_once("CartPole-v1", 3), gym.make("CartPole-v1")
    assert environments.single_observation_space == single.observation_space
    assert environments.single_action_space == single.action_space
    assert environments.observation_space.shape == (3, 4)
    assert make_at_once("MountainCar-v0", 3) is None
