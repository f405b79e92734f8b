"""Fixtures of several test files: small policies, batches of padded pairs, trajectories."""

import warnings

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn

with warnings.catch_warnings():  # deprecations of its own classes, on import only (torchrl 0.14.1)
    warnings.simplefilter("ignore", DeprecationWarning)
    import torchrl.collectors  # noqa: F401

from torch.distributions import Categorical, Independent, Normal
from torchrl.modules import NormalParamExtractor, OneHotCategorical, ProbabilisticActor, TanhNormal

from tesserl_preference_data import cut_segments, make_pairs

FEATURES, ACTIONS, DIMS = 5, 3, 2


class IndependentNormal(Independent):
    """A Gaussian over whole actions."""

    def __init__(self, loc, scale):
        super().__init__(Normal(loc, scale), 1)


class Direct(nn.Module):
    """A policy and a value that are called without TensorDict."""

    in_keys = ("observation",)

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(FEATURES, 11), nn.Tanh())
        self.policy, self.value = nn.Linear(11, ACTIONS), nn.Linear(11, 1)

    def policy_parameters(self, observation):
        return (self.policy(self.body(observation)),)

    def distribution(self, logits):
        return Categorical(logits=logits, validate_args=False)

    def state_value(self, observation):
        return self.value(self.body(observation))


def probabilistic(kind):
    """A torchrl actor; its parameters are named alike for all kinds."""
    continuous = kind in ("normal", "factorised_normal", "tanh_normal")
    layers = [nn.Linear(FEATURES, 11), nn.Tanh(), nn.Linear(11, 2 * DIMS if continuous else ACTIONS)]
    keys = ["loc", "scale"] if continuous else ["logits"]
    if continuous:
        layers.append(NormalParamExtractor())
    distribution = {
        "categorical": Categorical,
        "one_hot": OneHotCategorical,
        "normal": IndependentNormal,
        "factorised_normal": Normal,
        "tanh_normal": TanhNormal,
    }[kind]
    module = TensorDictModule(nn.Sequential(*layers), ["observation"], keys)
    return ProbabilisticActor(module, in_keys=keys, distribution_class=distribution, return_log_prob=True)


@pytest.fixture
def make_actor():
    """Build a policy: ``direct``, or a torchrl actor of a kind."""

    def build(kind="direct", seed=0):
        torch.manual_seed(seed)
        return Direct() if kind == "direct" else probabilistic(kind)

    return build


def draw_actions(kind, shape):
    if kind in ("direct", "categorical"):
        return torch.randint(ACTIONS, shape)
    if kind == "one_hot":
        return nn.functional.one_hot(torch.randint(ACTIONS, shape), ACTIONS)
    return 1.8 * torch.rand(*shape, DIMS) - 0.9


@pytest.fixture
def make_segments():
    """Build padded segments ``[P, T]`` with a valid step each; ``filling`` is what padding holds."""

    def build(num, length, *, kind="direct", full=False, filling=None):
        lengths = torch.full((num,), length) if full else torch.randint(1, length + 1, (num,))
        mask = torch.arange(length) < lengths.unsqueeze(1)
        observation = torch.randn(num, length, FEATURES)
        if filling is not None:
            observation[~mask] = filling
        return TensorDict(
            {
                "observation": observation,
                "action": draw_actions(kind, (num, length)),
                "mask": mask,
                "reference_log_prob": -torch.rand(num, length),
                "value_target": torch.randn(num, length, 1),
            },
            [num, length],
        )

    return build


@pytest.fixture
def make_batch(make_segments):
    """Build a batch of pairs whose two sides are padded to lengths of their own."""

    def build(num=7, lengths=(9, 9), **options):
        torch.manual_seed(3)
        sides = [make_segments(num, length, **options) for length in lengths]
        return TensorDict({"chosen": sides[0], "rejected": sides[1]}, [num])

    return build


@pytest.fixture
def make_trajectories():
    """Build trajectories of random length, whose reward tells what the action was worth."""

    def build(num, shortest=10, longest=40, seed=1):
        generator = torch.Generator().manual_seed(seed)
        rows = []
        for _ in range(num):
            length = int(torch.randint(shortest, longest + 1, (), generator=generator))
            observation = torch.randn(length, FEATURES, generator=generator)
            action = torch.randint(ACTIONS, (length,), generator=generator)
            following = {"reward": torch.rand(length, 1, generator=generator) + action.unsqueeze(-1)}
            rows.append(TensorDict({"observation": observation, "action": action, "next": following}, [length]))
        return rows

    return build


@pytest.fixture
def pairs(make_trajectories):
    """Pairs of segments of unequal length, one of them a tie."""
    pool = cut_segments(
        make_trajectories(30), segment_length=(3, 9), value_discount=0.9, generator=torch.Generator().manual_seed(0)
    )
    made = make_pairs(pool, num_pairs=20, generator=torch.Generator().manual_seed(0))
    return made.relabel(torch.tensor([0.5] + [0.0] * 19), source="score")
