"""Episodes that begin where an earlier one was: the same state, the same future."""

from collections import Counter
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from minatar import gym as minatar_gym

from tesserl_environments import (
    ReplayedStarts,
    SeedStart,
    TaskError,
    VisitedStart,
    make_environments,
    stack_frames,
    step,
)
from tesserl_environments.visited_starts import START_ACTIONS

pytestmark = pytest.mark.kernel_free

if "MinAtar/Breakout-v1" not in gym.registry:
    minatar_gym.register_envs()


def drawn_actions(space, number: int, seed: int = 1) -> np.ndarray:
    generator = np.random.default_rng(seed)
    if isinstance(space, gym.spaces.Discrete):
        return generator.integers(0, space.n, number)
    return (2 * generator.normal(size=(number, *space.shape))).astype(np.float32)  # also beyond the bounds


def reset(environments, slot: int, seed: int, actions=None) -> np.ndarray:
    mask = np.arange(environments.num_envs) == slot
    options = {"reset_mask": mask} | ({} if actions is None else {START_ACTIONS: actions})
    return environments.reset(seed=[seed] * environments.num_envs, options=options)[0][slot].copy()


def both(environments, action):
    observation, reward, terminated, truncated, _ = step(environments, np.stack([action, action]))
    return observation.copy(), reward, terminated, truncated


TASKS = {
    "CartPole-v1": (9, {}),
    "CartPole-v1, workers": (9, {"vectorization": "async"}),
    "LunarLander-v3": (40, {}),
    "Pendulum-v1": (30, {}),
    "MinAtar/Breakout-v1": (12, {"wrappers": [partial(stack_frames, num_frames=3)]}),
    "MinAtar/SpaceInvaders-v1": (20, {}),
}


def played(environments, actions) -> list:
    """Return the results of the steps until an episode ends."""
    rows = []
    for action in actions:
        rows.append(both(environments, action))
        if rows[-1][2].any() or rows[-1][3].any():
            break
    return rows


@pytest.mark.parametrize("task", TASKS)
def test_a_replay_leads_to_the_same_state_and_the_same_future(task):
    length, options = TASKS[task]
    environments = make_environments(task.split(",")[0], 2, resets_itself=False, starts="visited", **options)
    environments.reset(seed=[7, 8])
    space = environments.single_action_space
    actions = drawn_actions(space, length)
    for seed in range(5):
        for slot in (0, 1):  # episodes before, which must not matter
            reset(environments, slot, 7 + slot)
        both(environments, drawn_actions(space, 1, seed)[0])
        reset(environments, 0, seed)
        seen = played(environments, actions)
        prefix = actions[: len(seen) - 1]
        assert np.array_equal(reset(environments, 1, seed, prefix), seen[-2][0][0])
        reset(environments, 0, seed, prefix)
        for observation, reward, *flags in played(environments, drawn_actions(space, 10, 3)):
            assert np.array_equal(observation[0], observation[1])
            assert reward[0] == reward[1]
            assert all(flag[0] == flag[1] for flag in flags)
    environments.close()


def test_a_time_limit_counts_replayed_steps():
    wrappers = [partial(TimeLimit, max_episode_steps=6)]
    environments = make_environments("Pendulum-v1", 2, wrappers=wrappers, resets_itself=False, starts="visited")
    environments.reset(seed=[1, 1])
    actions = drawn_actions(environments.single_action_space, 4)
    reset(environments, 1, 5, actions)
    truncated = [both(environments, actions[0])[3].tolist() for _ in range(2)]
    assert truncated == [[False, False], [False, True]]


def test_an_episode_that_ends_during_its_replay_is_an_error_that_names_the_environment():
    environments = make_environments("CartPole-v1", 2, resets_itself=False, starts="visited")
    environments.reset(seed=[1, 1])
    with pytest.raises(
        TaskError,
        match=r"environment 1 of CartPole-v1: expected the episode of seed 3 to continue after a replay of its first "
        r"50 actions, got its end after \d+; make the task depend on its seed and actions alone, or choose starts of "
        "kind seed",
    ):
        reset(environments, 1, 3, np.ones(50, np.int64))


def test_other_options_of_a_reset_reach_the_task():
    environment = ReplayedStarts(gym.make("CartPole-v1"), "it")
    observation, _ = environment.reset(seed=1, options={"low": 0.01, "high": 0.011, START_ACTIONS: np.zeros(0)})
    assert (observation >= 0.01).all()


# --- the starts --------------------------------------------------------------------------------------------------


def recorded(seed=3, *, fraction=0.5, num_kept=2, lengths=(5, 9, 4)) -> VisitedStart:
    start = VisitedStart(seed, fraction=fraction, num_kept=num_kept)
    for number, length in enumerate(lengths):
        start.record(10 * number, 100 * number + np.arange(length))
    return start


@pytest.mark.parametrize("fraction", [0.25, 0.3, 0.5, 0.9])
def test_the_fraction_of_visited_starts_is_exact_and_evenly_spaced(fraction):
    start = recorded(fraction=fraction)
    visited = np.cumsum([start.branch(number)[1] is not None for number in range(1_000)])
    assert np.abs(visited - fraction * np.arange(1, 1_001)).max() <= 1


def test_without_a_trajectory_all_starts_are_resets():
    start, plain = VisitedStart(3, fraction=0.9, num_kept=2), SeedStart(3)
    assert all(start.arguments(number) == plain.arguments(number) for number in range(50))


def test_a_visited_start_is_the_seed_and_the_first_actions_of_a_newest_trajectory():
    start, plain, found = recorded(), SeedStart(3), Counter()
    for number in range(1, 8_001, 2):
        seed, options = start.arguments(number)
        origin, actions = start.branch(number)
        assert seed == plain.arguments(origin)[0]
        assert options[START_ACTIONS].tolist() == actions.tolist()
        assert actions.tolist() == list(range(10 * origin, 10 * origin + len(actions)))
        found[origin, len(actions)] += 1
    # the oldest of three trajectories is gone; the step is uniform within each of the others
    assert found.keys() == {(10, step) for step in range(9)} | {(20, step) for step in range(4)}
    for (origin, _), count in found.items():
        expected = 4_000 / 2 / (9 if origin == 10 else 4)
        assert abs(count - expected) < 5 * np.sqrt(expected)


def test_the_draw_depends_on_the_seed_and_the_number_of_the_start():
    def draws(seed):
        start = recorded(seed)
        return [(origin, len(actions)) for origin, actions in map(start.branch, range(1, 41, 2))]

    assert draws(3) == draws(3)
    assert draws(3) != draws(4)
    assert len(set(draws(3))) > 5


def test_a_recorded_trajectory_is_a_copy():
    start = VisitedStart(3, fraction=0.5, num_kept=1)
    actions = np.arange(4)
    start.record(0, actions)
    actions[:] = 9
    assert start.trajectories[0][1].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 1.0, "num_kept": 1}, r"fraction must be in \(0, 1\), got 1.0"),
        ({"fraction": 0.0, "num_kept": 1}, r"fraction must be in \(0, 1\), got 0.0"),
        ({"fraction": 0.5, "num_kept": 0}, "num_kept must be at least 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        VisitedStart(1, **options)
