"""Tasks whose spaces have other forms than policies and layouts read."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from tesserl_environments import (
    ObservationLayout,
    PlainSpaces,
    TaskError,
    closed_afterwards,
    make_environments,
    own_action,
    plain_action_space,
    restore,
    snapshot,
)
from tesserl_environments.plain_spaces import with_plain_spaces

pytestmark = pytest.mark.kernel_free

LOW = np.array([[-1.0, -2.0], [-3.0, -4.0]], np.float32)
NESTED = spaces.Dict(
    {
        "arm": spaces.Dict({"joints": spaces.Box(-9, 9, (2,), np.float32), "grip": spaces.Discrete(2)}),
        "pair": spaces.Tuple([spaces.Box(-9, 9, (1,), np.float32), spaces.Box(0, 255, (4, 5, 3), np.uint8)]),
    }
)
SEEN = {
    "arm": {"joints": np.array([1.0, 2.0], np.float32), "grip": 1},
    "pair": (np.array([3.0], np.float32), np.full((4, 5, 3), 7, np.uint8)),
}


class Recording(gym.Env):
    """Returns one observation, and keeps the actions that it gets."""

    def __init__(self, action_space, observation_space=NESTED, seen=SEEN):
        self.action_space, self.observation_space, self.seen, self.got = action_space, observation_space, seen, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.seen, {}

    def step(self, action):
        self.got.append(action)
        return self.seen, 0.0, False, False, {}


gym.register("Recording-v0", entry_point=Recording)


@pytest.mark.parametrize(
    ("space", "plain", "action", "own"),
    [
        (spaces.Discrete(3, start=5), spaces.Discrete(3), 2, 7),
        (spaces.Discrete(3, start=-1), spaces.Discrete(3), 0, -1),
        (spaces.MultiBinary(3), spaces.MultiDiscrete([2, 2, 2]), [1, 0, 1], [1, 0, 1]),
        (spaces.MultiBinary((2, 2)), spaces.MultiDiscrete([2] * 4), [1, 0, 1, 1], [[1, 0], [1, 1]]),
        (spaces.MultiDiscrete([3, 4], start=[1, -2]), spaces.MultiDiscrete([3, 4]), [2, 3], [3, 1]),
        (spaces.MultiDiscrete([[3, 4], [5, 6]]), spaces.MultiDiscrete([3, 4, 5, 6]), [0, 1, 2, 3], [[0, 1], [2, 3]]),
        (
            spaces.Box(LOW, -LOW, dtype=np.float32),
            spaces.Box(LOW.reshape(4), -LOW.reshape(4), dtype=np.float32),
            [0.5, 1.0, 1.5, 2.0],
            [[0.5, 1.0], [1.5, 2.0]],
        ),
        (spaces.Box(-1, 1, (), np.float64), spaces.Box(-1, 1, (1,), np.float64), [0.5], 0.5),
    ],
)
def test_a_plain_action_becomes_the_task_s_own(space, plain, action, own):
    assert plain_action_space(space) == plain
    got = own_action(space, np.asarray(action, plain.dtype))
    assert space.contains(got)
    assert np.array_equal(got, own)
    environment = PlainSpaces(Recording(space))
    environment.step(np.asarray(action, plain.dtype))
    assert np.array_equal(environment.unwrapped.got[0], own)
    for seed in range(3):
        plain.seed(seed)
        assert space.contains(own_action(space, plain.sample()))


@pytest.mark.parametrize(
    "space", [spaces.Discrete(3), spaces.MultiDiscrete([2, 3]), spaces.Box(-1, 1, (2,)), spaces.Text(3)]
)
def test_spaces_that_are_plain_are_left_alone(space):
    environment = Recording(space, spaces.Dict({"a": spaces.Discrete(2)}))
    assert with_plain_spaces(environment) is environment


def test_entries_of_nested_observations_have_the_names_of_their_places():
    environment = PlainSpaces(Recording(spaces.Discrete(2)))
    layout = ObservationLayout(environment.observation_space)
    observation, _ = environment.reset()
    assert set(observation) == {"arm.grip", "arm.joints", "pair.0", "pair.1"}
    out = layout.empty(1)
    layout.write({name: np.asarray(value)[None] for name, value in observation.items()}, out)
    assert out["observation"].tolist() == [[0, 1, 1, 2, 3]]  # grip as one-hot, joints, the first of the pair
    assert out["pixels"].shape == (1, 3, 4, 5)


def test_two_entries_of_one_name_are_refused():
    space = spaces.Dict({"a.b": spaces.Discrete(2), "a": spaces.Dict({"b": spaces.Discrete(3)})})
    with pytest.raises(ValueError, match=r"entries of an observation must have names of their own, got .*'a\.b'"):
        PlainSpaces(Recording(spaces.Discrete(2), space))


@pytest.mark.parametrize(
    "seen", [{"arm": SEEN["arm"]}, {**SEEN, "pair": SEEN["pair"][:1]}, {**SEEN, "pair": 3}], ids=["dict", "tuple", "no"]
)
def test_an_entry_that_is_missing_is_named_with_its_environment(seen):
    kwargs = {"action_space": spaces.Discrete(2), "seen": seen}
    with (
        closed_afterwards(make_environments("Recording-v0", 1, kwargs=kwargs)) as environments,
        pytest.raises(TaskError, match=r"environment 0 of Recording-v0: reset\(\) .*entry 'pair\.[01]' is missing"),
    ):
        environments.reset(seed=[1])


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_an_episode_of_plain_actions_can_be_restored(vectorization):
    kwargs = {"action_space": spaces.MultiBinary((2, 2))}
    made = [make_environments("Recording-v0", 2, kwargs=kwargs, vectorization=vectorization) for _ in range(2)]
    with closed_afterwards(made[0]) as environments, closed_afterwards(made[1]) as others:
        environments.reset(seed=[1, 2])
        environments.step(np.array([[1, 0, 1, 1], [0, 0, 1, 0]]))
        saved = snapshot(environments)
        others.reset(seed=[3, 4])
        assert restore(others, saved)
        assert snapshot(others) == saved
