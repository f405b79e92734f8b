"""``environment:`` as a vector environment, and its wrappers."""

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from tesserl_configs import ConfigError, load_config
from tesserl_environments import worker_seeds
from tesserl_trainer.algorithms.environments import discrete_actions, make_environments

pytestmark = pytest.mark.kernel_free


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


def test_reward_clip_bounds_rewards(make):
    environments = make(**{"num_envs: 3": "num_envs: 3, wrappers: [{kind: reward_clip, low: -0.5, high: 0.25}]"})
    environments.reset(seed=1)
    assert environments.step(np.array([0, 1, 0]))[1].tolist() == [0.25] * 3


def test_rewards_are_normalised_in_training_alone(make):
    wrapped = {"num_envs: 3": "num_envs: 3, wrappers: [{kind: normalize_reward, discount: 1, clip: null}]"}
    for environments, rewards in ((make(**wrapped), [1.0, 2.0]), (make(evaluation=True, **wrapped), [1.0, 1.0])):
        environments.reset(seed=1)
        for reward in rewards:  # the sums are 1 and 2, of standard deviation 0.5
            assert environments.step(np.array([0, 1, 0]))[1].tolist() == pytest.approx([reward] * 3)


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
