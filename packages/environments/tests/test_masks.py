"""Masks of actions: where they are read, what they must be, and what is drawn of them."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from tesserl_environments import (
    Boundary,
    Checked,
    EnvironmentArgumentError,
    MaskFromInfo,
    ObservationLayout,
    TaskError,
    closed_afterwards,
)

pytestmark = pytest.mark.kernel_free

SPACES = {
    (4,): (spaces.Discrete(4), spaces.MultiBinary(4)),
    (2, 3): (spaces.MultiDiscrete([3, 3]), spaces.Box(0, 1, (2, 3), np.int8)),
    (3, 2): (spaces.MultiBinary(3), spaces.MultiBinary(6)),
    (6,): (spaces.MultiDiscrete([2, 4]), spaces.Box(0, 1, (6,), np.bool_)),
}


def layout_of(actions, entry):
    return ObservationLayout(spaces.Dict({"action_mask": entry, "seen": spaces.Box(-1, 1, (2,))}), action_space=actions)


@pytest.mark.parametrize("shape", SPACES)
def test_a_mask_has_the_shape_of_the_logits_and_is_no_feature(shape):
    actions, entry = SPACES[shape]
    layout = layout_of(actions, entry)
    assert layout.shapes == {"observation": (2,), "action_mask": shape}
    assert layout.dtypes["action_mask"] == np.bool_
    mask = np.random.default_rng(0).integers(0, 2, (5, *entry.shape)).astype(entry.dtype)
    out = layout.empty(5)
    layout.write({"seen": np.ones((5, 2), np.float32), "action_mask": mask}, out)
    assert np.array_equal(out["action_mask"].reshape(5, -1), mask.reshape(5, -1) != 0)
    assert (out["observation"] == 1).all()


@pytest.mark.parametrize("shape", SPACES)
def test_draws_are_allowed_and_uniform(shape):
    actions, entry = SPACES[shape]
    mask = layout_of(actions, entry).mask
    allowed = np.zeros((3000, int(np.prod(shape))), np.bool_)
    allowed[:, {(4,): [0, 2], (3, 2): [0, 1, 3, 5]}.get(shape, [0, 3, 5])] = True  # two options of one choice alone
    allowed = allowed.reshape(3000, *shape)
    drawn = mask.draw(allowed, np.random.default_rng(0))
    assert all(actions.contains(one) for one in drawn[:5])
    assert mask.permits(allowed, drawn).all()
    assert not mask.permits(~allowed, drawn).any()
    assert mask.log_density(allowed)[0] == pytest.approx(-np.log(2))
    values, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(values) == 2
    assert counts.min() > 1400
    assert mask.allows(allowed).all()
    assert not mask.allows(np.zeros((1, *shape), np.bool_)).any()


@pytest.mark.parametrize(
    ("actions", "entry", "said"),
    [
        (
            spaces.Box(-1, 1, (2,)),
            spaces.MultiBinary(2),
            "action_mask is for Discrete and MultiDiscrete actions, got Box",
        ),
        (
            spaces.Discrete(3),
            spaces.MultiBinary(2),
            r"each of the 3 options of Discrete\(3\), got MultiBinary\(2\); corr",
        ),
        (spaces.Discrete(2), spaces.Box(0, 1, (2,), np.float32), "must have one bool, or integer 0 or 1"),
    ],
)
def test_masks_that_do_not_fit_the_actions_are_refused(actions, entry, said):
    with pytest.raises(ValueError, match=said):
        layout_of(actions, entry)


class Masked(gym.Env):
    """Tells a mask in ``info``, and nothing else."""

    observation_space, action_space = spaces.Box(-1, 1, (2,)), spaces.Discrete(3)

    def __init__(self, mask=(1, 0, 1)):
        self.mask = mask

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {} if self.mask is None else {"action_mask": np.array(self.mask)}


def reset(mask):
    """Reset a task of one environment whose info has this mask."""
    tasks = gym.vector.SyncVectorEnv([lambda: Checked(MaskFromInfo(Masked(mask)), "environment 0 of Masked-v0")])
    with closed_afterwards(tasks) as environments:
        layout = ObservationLayout(environments.single_observation_space, action_space=environments.single_action_space)
        out, boundary = layout.empty(1), Boundary(environments, layout)
        boundary.reset(out)
        boundary.require_allowed(out)
        return out


def test_a_mask_in_info_becomes_an_entry():
    assert reset((1, 0, 1))["action_mask"].tolist() == [[True, False, True]]
    assert reset((True, True, False))["action_mask"].tolist() == [[True, True, False]]


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (None, r"environment 0 of Masked-v0: reset\(\) returned .*: entry 'action_mask' is missing"),
        ((1, 0), r"environment 0 of Masked-v0: .*entry 'action_mask': expected an array of shape \(3,\), got \(2,\)"),
        ((1, 0, 2), "action_mask must hold 0 and 1, got numbers from 0 to 2; 1 allows an action"),
        (
            (0, 0, 0),
            "^environment 0 of SyncVectorEnv: action_mask must allow at least one option of every choice in a",
        ),
    ],
)
def test_a_wrong_mask_is_an_error_that_names_the_environment(mask, said):
    with pytest.raises(TaskError, match=said):
        reset(mask)


def test_masks_from_info_are_refused_where_there_is_nothing_to_mask():
    with pytest.raises(
        EnvironmentArgumentError, match="mask_from_info needs Discrete or MultiDiscrete actions, got Box"
    ):
        MaskFromInfo(gym.make("Pendulum-v1"))
    with pytest.raises(EnvironmentArgumentError, match="the observation has an entry action_mask already; remove the"):
        MaskFromInfo(MaskFromInfo(Masked()))
