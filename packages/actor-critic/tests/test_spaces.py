"""Action spaces of Gymnasium (by stand-ins with their attributes) and of torchrl."""

from types import SimpleNamespace

import pytest
import torch
from torchrl.data import Bounded, Categorical, MultiCategorical, MultiOneHot, OneHot, Unbounded

from tesserl_actor_critic.spaces import ContinuousActions, DiscreteActions, read_action_space


def box(low, high, **changes):
    low, high = torch.tensor(low), torch.tensor(high)
    return SimpleNamespace(**{"shape": tuple(low.shape), "low": low, "high": high, **changes})


@pytest.mark.parametrize(
    ("space", "expected", "num_blocks"),
    [
        (4, DiscreteActions((4,), scalar=True), None),
        (SimpleNamespace(shape=(), n=4, start=0), DiscreteActions((4,), scalar=True), None),
        (Categorical(4), DiscreteActions((4,), scalar=True), None),
        (SimpleNamespace(shape=(3,), nvec=[5, 5, 5]), DiscreteActions((5, 5, 5), scalar=False), 3),
        (SimpleNamespace(shape=(1,), nvec=[5]), DiscreteActions((5,), scalar=False), 1),
        (SimpleNamespace(shape=(2,), nvec=[3, 4]), DiscreteActions((3, 4), scalar=False), None),
        (MultiCategorical([3, 4]), DiscreteActions((3, 4), scalar=False), None),
        (MultiCategorical([3, 3]), DiscreteActions((3, 3), scalar=False), 2),
    ],
)
def test_choices(space, expected, num_blocks):
    actions = read_action_space(space)
    assert actions == expected
    assert actions.num_blocks == num_blocks


@pytest.mark.parametrize(
    "space", [box([-1.0, 0.0], [1.0, 5.0]), Bounded(torch.tensor([-1.0, 0]), torch.tensor([1.0, 5]))]
)
def test_bounds(space):
    actions = read_action_space(space)
    assert isinstance(actions, ContinuousActions)
    assert actions.is_bounded
    assert (actions.low.tolist(), actions.high.tolist()) == ([-1.0, 0.0], [1.0, 5.0])


@pytest.mark.parametrize("space", [Unbounded((3,)), box([0.0], [torch.inf]), box([-torch.inf], [0.0])])
def test_missing_bounds(space):
    assert not read_action_space(space).is_bounded


def test_a_spec_without_bounds_has_infinite_ones():
    actions = read_action_space(Unbounded((3,)))
    assert (actions.low.tolist(), actions.high.tolist()) == ([-torch.inf] * 3, [torch.inf] * 3)


@pytest.mark.parametrize(
    ("space", "error", "message"),
    [
        (OneHot(4), TypeError, "must number its actions, got OneHot; .*categorical_action_encoding=True"),
        (MultiOneHot([3, 4]), TypeError, "must number its actions, got MultiOneHot"),
        (True, TypeError, "action_space must be a number of actions, a Discrete, .*got True"),
        ("Discrete(4)", TypeError, "must be a number of actions"),
        (SimpleNamespace(shape=(4,), n=4), TypeError, "must be a number of actions"),  # a MultiBinary
        (0, ValueError, "at least one action in each choice, got 0"),
        (SimpleNamespace(shape=(), n=4, start=1), ValueError, "must count from 0, .*start=1.*; subtract its start"),
        (SimpleNamespace(shape=(2,), nvec=[3, 3], start=[0, 1]), ValueError, "must count from 0"),
        (
            SimpleNamespace(shape=(2, 2), nvec=[[3, 3], [3, 3]]),
            ValueError,
            r"shape of one action must be .*got \(2, 2\)",
        ),
        (Categorical(4, shape=(8,)), ValueError, r"(?s)got \(8,\) in .*env.action_spec_unbatched"),
        (Bounded(-1.0, 1.0, (8, 3)), ValueError, r"got \(8, 3\)"),
        (box(0.0, 1.0), ValueError, r"got \(\)"),
        (box([0], [255]), ValueError, "with bounds must be of real numbers, .*; use a Discrete for categories"),
    ],
)
def test_what_is_refused(space, error, message):
    with pytest.raises(error, match=message):
        read_action_space(space)
