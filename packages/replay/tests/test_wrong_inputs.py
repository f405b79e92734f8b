"""Mistakes of a caller are named, with what was expected and what to do."""

import pytest
import torch
from tensordict import TensorDict

from tesserl_replay import NStepWindow, n_step_returns


def rollout():
    flags = {name: torch.zeros(2, 4, 1, dtype=torch.bool) for name in ("terminated", "truncated", "done")}
    following = {"observation": torch.zeros(2, 4, 5), "reward": torch.ones(2, 4, 1), **flags}
    return TensorDict({"observation": torch.zeros(2, 4, 5), "action": torch.zeros(2, 4), "next": following}, [2, 4])


WRONG = {
    "float flag": ("done", torch.zeros(2, 4, 1), TypeError, r"done must be bool, got torch.float32; convert it"),
    # powers of the discount would be cut to integers, and all rewards but the first would be lost
    "integer reward": (
        "reward",
        torch.ones(2, 4, 1, dtype=torch.int64),
        TypeError,
        "reward must be floating point, got",
    ),
    "reward without last dimension": (
        "reward",
        torch.ones(2, 4),
        ValueError,
        r"reward must have the shape \(2, 4, 1\)",
    ),
}


@pytest.mark.parametrize("num_steps", [1, 3])
@pytest.mark.parametrize(("name", "entry", "kind", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_entry_of_a_rollout_is_named(name, entry, kind, message, num_steps):
    with pytest.raises(kind, match=message):
        NStepWindow(num_steps, 0.9).extend(rollout().set(("next", name), entry))


def test_what_is_no_rollout_is_named():
    with pytest.raises(TypeError, match=r"batch must be a TensorDict \[N, T\], got dict"):
        NStepWindow(3, 0.9).extend(dict(rollout().items()))
    with pytest.raises(ValueError, match=r"batch must have the batch shape \[N, T\], got \[8\]"):
        NStepWindow(3, 0.9).extend(rollout().flatten())


def test_flags_of_returns_must_be_bool():
    with pytest.raises(TypeError, match=r"terminated must be bool, got torch.float32; convert it with"):
        n_step_returns(torch.zeros(5), torch.zeros(5), torch.zeros(5), num_steps=2, discount=0.9)
