"""One environment that returns wrong shapes and types, or raises: its error names it."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from tesserl_environments import Checked, TaskError

NAME = "environment 1 of Task-v0"

GOOD = np.array([0.25, -0.5], np.float32)

STEPS = {
    "narrow": (GOOD[:1], 1.0, False, False, {}),
    "text": (np.array(["a", "b"]), 1.0, False, False, {}),
    "wide reward": (GOOD, np.array([1.0]), False, False, {}),
    "no reward": (GOOD, None, False, False, {}),
    "float end": (GOOD, 1.0, 0.0, False, {}),
    "wide end": (GOOD, 1.0, False, np.array([False]), {}),
    "no info": (GOOD, 1.0, False, False, None),
    "old": (GOOD, 1.0, False, {}),
}
"""Wrong results of a step, by name."""

WRONG_STEPS = {
    "narrow": r"step\(\) returned an observation that is not of its space: "
    r"expected an array of shape \(2,\), got \(1,\); correct the task or its observation_space",
    "text": r"step\(\) returned an observation .*: expected an array of type float32, got <U1",
    "wide reward": r"step\(\) must return a reward that is a number, got an array of shape \(1,\)",
    "no reward": r"step\(\) must return a reward that is a number, got None",
    "float end": r"step\(\) must return terminated as a boolean, got 0\.0",
    "wide end": r"step\(\) must return truncated as a boolean, got an array of shape \(1,\)",
    "no info": r"step\(\) must return info as a dict, got NoneType",
    "old": r"raised an error in step\(\):\n.*not enough values to unpack \(expected 5, got 4\)",
}


class Misbehaving(gym.Env):
    """Returns a wrong step, or raises in a method: ``"raise in step"``."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, wrong=None):
        self.wrong = wrong

    def reach(self, method):
        if self.wrong == f"raise in {method}":
            raise LookupError("the task broke")

    def reset(self, *, seed=None, options=None):
        self.reach("reset")
        return GOOD, {}

    def step(self, action):
        self.reach("step")
        return STEPS[self.wrong]

    def close(self):
        self.reach("close")


@pytest.mark.parametrize("wrong", list(WRONG_STEPS))
def test_a_step_of_the_wrong_shape_or_type_is_refused_by_name(wrong):
    environment = Checked(Misbehaving(wrong), NAME)
    environment.reset()
    with pytest.raises(TaskError, match=rf"(?s)^{NAME}:? {WRONG_STEPS[wrong]}"):
        environment.step(0)


@pytest.mark.parametrize("method", ["reset", "step", "close"])
def test_an_error_of_the_task_names_the_environment_and_shows_where(method):
    environment = Checked(Misbehaving(f"raise in {method}"), NAME)
    if method == "step":
        environment.reset()
    with pytest.raises(
        TaskError, match=rf"(?s)^{NAME} raised an error in {method}\(\):\nTraceback .*test_checked\.py.*"
    ) as e:
        getattr(environment, method)(*[0] * (method == "step"))
    assert str(e.value).endswith("LookupError: the task broke")


def test_an_observation_of_a_wrong_reset_is_refused():
    environment = Checked(Misbehaving(), NAME)
    environment.env.reset = lambda **_: (GOOD[:1], {})
    with pytest.raises(TaskError, match=rf"^{NAME}: reset\(\) returned an observation that is not of its space"):
        environment.reset()


class Parts(gym.Env):
    """Returns whatever it is given, from a Dict space."""

    observation_space = spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(3), "c": spaces.Text(3)})
    action_space = spaces.Discrete(2)
    answer: dict

    def step(self, action):
        return self.answer, 1.0, False, False, {}


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"a": GOOD[:1]}, r"entry 'a': expected an array of shape \(2,\), got \(1,\)"),
        ({"b": 1.5}, "entry 'b': expected an array of type int64, got float64 with values from 1.5 to 1.5"),
        ({"b": np.array([1])}, r"entry 'b': expected an array of shape \(\), got \(1,\)"),
    ],
)
def test_each_entry_of_a_dict_is_checked(part, message):
    environment = Checked(Parts(), NAME)
    environment.env.answer = {"a": GOOD, "b": 1, "c": "x"} | part
    with pytest.raises(TaskError, match=message):
        environment.step(0)
    del environment.env.answer["a"]
    with pytest.raises(TaskError, match="entry 'a' is missing"):
        environment.step(0)


@pytest.mark.parametrize("value", [[0.5, 1.0], np.array([0.5, 1.0]), np.array([0, 1]), np.array([True, False])])
def test_other_floats_integers_and_lists_are_floats(value):
    environment = Checked(Parts(), NAME)
    environment.env.answer = {"a": value, "b": np.int32(1), "c": "x"}
    for _ in range(2):
        observation = environment.step(0)[0]
        assert observation["a"] is value
        assert observation["b"] == 1


@pytest.mark.parametrize(
    ("reward", "end"), [(1, True), (np.float32(1), np.True_), (np.int64(1), np.array(True)), (True, True)]
)
def test_every_kind_of_number_is_a_reward(reward, end):
    environment = Checked(Parts(), NAME)
    environment.env.step = lambda _: ({"a": GOOD, "b": 1, "c": "x"}, reward, end, end, {})
    _, got, terminated, truncated, _ = environment.step(0)
    assert float(got) == 1.0
    assert terminated
    assert truncated


def test_every_wrong_step_is_tested():
    assert set(STEPS) == set(WRONG_STEPS)
