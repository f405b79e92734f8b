"""Fixtures of several test files: a small policy, the same as a torchrl actor, and padded trajectories."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributions import Categorical
from torchrl.modules import ProbabilisticActor

with warnings.catch_warnings():  # deprecations of its own classes, on import only (torchrl 0.14.1)
    warnings.simplefilter("ignore", DeprecationWarning)
    import torchrl.collectors  # noqa: F401

FEATURES, ACTIONS = 5, 3


class DirectPolicy(nn.Module):
    """A categorical policy that can be called without a TensorDict."""

    in_keys = ("observation",)

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(FEATURES, 7), nn.Tanh(), nn.Linear(7, ACTIONS))

    def policy_parameters(self, observation):
        return (self.network(observation),)

    def distribution(self, logits):
        return Categorical(logits=logits, validate_args=False)


def torchrl_actor(policy):
    """The same policy, and the same parameters, as torchrl knows it."""
    module = TensorDictModule(policy.network, in_keys=["observation"], out_keys=["logits"])
    return ProbabilisticActor(module, in_keys=["logits"], distribution_class=Categorical, return_log_prob=True)


@pytest.fixture
def policy():
    torch.manual_seed(0)
    return DirectPolicy()


@pytest.fixture
def as_actor():
    return torchrl_actor


@pytest.fixture
def make_batch():
    """Build trajectories of the given lengths, ``longest`` steps wide, with ``padding`` behind their ends."""

    def build(lengths=(4, 2, 3, 1), *, longest=None, padding=0.0):
        generator = torch.Generator().manual_seed(1)
        num, width = len(lengths), longest or max(lengths)
        mask = torch.arange(width) < torch.tensor(lengths).unsqueeze(-1)
        rest = TensorDict(
            {
                "observation": torch.randn(num, 11, FEATURES, generator=generator)[:, :width],
                "action": torch.randint(ACTIONS, (num, 11), generator=generator)[:, :width],
                "action_log_prob": -1.1 + 0.4 * torch.randn(num, 11, generator=generator)[:, :width],
                "reference_log_prob": -1.1 + 0.4 * torch.randn(num, 11, generator=generator)[:, :width],
                "advantage": torch.randn(num, 11, 1, generator=generator)[:, :width],
            },
            [num, width],
        )
        for _, entry in rest.items():
            entry[~mask] = padding if entry.is_floating_point() else -7  # no action at all
        return rest.set("mask", mask)

    return build


@pytest.fixture
def vectors():
    """Read a file of reference numbers."""

    def read(name):
        return json.loads((Path(__file__).parent / "vectors" / f"{name}.json").read_text())

    return read


@pytest.fixture
def padded():
    """Make a padded tensor and its mask out of rows of different lengths."""

    def build(rows, *, fill=0.0, width=None):
        width = width or max(map(len, rows))
        values = torch.full((len(rows), width), fill, dtype=torch.float64)
        mask = torch.zeros(len(rows), width, dtype=torch.bool)
        for index, row in enumerate(rows):
            values[index, : len(row)] = torch.tensor(row, dtype=torch.float64)
            mask[index, : len(row)] = True
        return values, mask

    return build
