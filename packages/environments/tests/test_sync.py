"""Environments that are stepped one after the other return what Gymnasium's return."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from tesserl_environments.sync import SyncEnvironments


class Informed(gym.Env):
    """Says now and then how long an episode has been, and ends after its limit."""

    action_space = spaces.Box(-1.0, 1.0, (2,))

    def __init__(self, limit, kind="box"):
        self.limit, self.kind, self.steps = limit, kind, 0
        box = spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.observation_space = box if kind == "box" else spaces.Dict(part=box, count=spaces.Discrete(100))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observation(0.0), {"started": self.limit}

    def step(self, action):
        self.steps += 1
        info = {"steps": self.steps, "who": f"number {self.limit}"} if self.steps % 2 else {}
        ended = self.steps == self.limit
        return self._observation(action[0]), float(action[1]), ended and self.limit % 2 == 0, ended, info

    def _observation(self, number):
        part = np.array([self.steps, number, self.np_random.random()])
        return part if self.kind == "box" else {"part": part, "count": self.steps}


def assert_same(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_same(value, other[key])
    elif isinstance(one, np.ndarray) and one.dtype != object:
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
    elif isinstance(one, np.ndarray | list | tuple):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_same(first, second)
    else:
        assert one == other


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("kind", ["box", "dict"])
@pytest.mark.parametrize("copy", [True, False])
def test_everything_is_that_of_gymnasium(mode, kind, copy):
    makers = [lambda limit=limit: Informed(limit, kind) for limit in (2, 3, 7)]
    ours, theirs = (each(makers, copy=copy, autoreset_mode=mode) for each in (SyncEnvironments, SyncVectorEnv))
    assert_same(ours.reset(seed=3), theirs.reset(seed=3))
    random = np.random.default_rng(0)
    for _ in range(20):
        actions = random.uniform(-1, 1, (3, 2)).astype(np.float32)
        mine, other = ours.step(actions), theirs.step(actions)
        assert_same(mine, other)
        ended = mine[2] | mine[3]
        if mode is AutoresetMode.DISABLED and ended.any():
            assert_same(*(each.reset(options={"reset_mask": ended}) for each in (ours, theirs)))


@pytest.mark.parametrize(("copy", "differs"), [(True, True), (False, False)])
def test_results_are_copies_where_they_are_asked_for(copy, differs):
    environments = SyncEnvironments([lambda: Informed(9)], copy=copy, autoreset_mode=AutoresetMode.SAME_STEP)
    environments.reset(seed=0)
    first, *rest = environments.step(np.ones((1, 2), np.float32))
    before = [each.copy() for each in rest[:3]]
    second = environments.step(-np.ones((1, 2), np.float32))[0]
    assert (first is not second) == differs
    assert all(map(np.array_equal, rest[:3], before))


def test_an_environment_that_has_ended_must_be_reset():
    environments = SyncEnvironments([lambda: Informed(1)], autoreset_mode=AutoresetMode.DISABLED)
    environments.reset(seed=0)
    environments.step(np.ones((1, 2), np.float32))
    with pytest.raises(RuntimeError, match=r"must be reset first, got \[ True\]"):
        environments.step(np.ones((1, 2), np.float32))
